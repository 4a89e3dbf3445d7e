variable "TAG" {
  default = "latest"
  validation {
    condition = TAG == regex_replace(TAG, "/", "")
    error_message = "a tag has no slash"
  }
}
target "default" { tags = ["app:${TAG}"] }
