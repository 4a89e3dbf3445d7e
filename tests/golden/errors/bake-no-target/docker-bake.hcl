target "web" { dockerfile = "x" }
