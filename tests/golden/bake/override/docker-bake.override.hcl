WHOAMI = "myuser"
FOO = "def-${WHOAMI}"
target "app" {
  args = { v2 = 2 }
  tags = ["two", "two"]
}
