target "app" {
  network = "host"
}
