variable "BASE_IMAGE" { default = "alpine" }
target "default" {
  dockerfile-inline = "FROM ${BASE_IMGE}"
}
