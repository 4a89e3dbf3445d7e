variable "FOO" { default = "abc" }
target "app" {
  args = { v1 = "pre-${FOO}" }
  tags = ["one"]
  platforms = ["linux/amd64"]
}
group "default" { targets = ["app"] }
