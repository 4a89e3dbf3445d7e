variable "TAGS" {
  type = list(string)
  default = ["latest"]
}
variable "COUNT" { default = 1 }
variable "VALS" {
  type = object({ name = string, sizes = list(number) })
  default = { name = "a", sizes = [1] }
}
variable "PLATFORM" { default = BAKE_LOCAL_PLATFORM == "" ? "none" : "some" }
target "default" {
  tags = [for tag in TAGS : "app:${tag}"]
  args = { COUNT = COUNT + 1, NAME = VALS.name, SUM = join("+", VALS.sizes), CMD = BAKE_CMD_CONTEXT, PLATFORM = PLATFORM }
}
