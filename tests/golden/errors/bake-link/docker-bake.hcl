target "a" {
  contexts = { other = "target:b" }
}
target "b" { contexts = { other = "target:a" } }
