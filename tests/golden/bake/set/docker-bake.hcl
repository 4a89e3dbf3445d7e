target "app" {
  args = { A = "1", B = "2" }
  tags = ["app:1"]
  platforms = ["linux/amd64"]
  cache-from = ["a"]
  secret = [{ id = "aws", src = "old" }]
}
target "api" { inherits = ["app"] }
