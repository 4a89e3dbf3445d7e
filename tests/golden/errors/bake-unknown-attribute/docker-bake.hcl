target "default" {
  dockerfil = "x"
}
