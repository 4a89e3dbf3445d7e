variable "PLATFORMS" {
  type = list(string)
  default = ["linux/amd64", "linux/arm64"]
}
variable "DEBUG" { default = false }
variable "NOTHING" { default = null }
function "tagged" {
  params = [name]
  variadic_params = more
  result = [for tag in concat(["latest"], more) : "reg.example/${name}:${tag}"]
}
group "default" {
  description = "everything"
  targets = ["all", "app"]
}
group "all" { targets = ["lib"] }
target "_base" {
  args = { LEVEL = DEBUG ? "debug" : "release", KEEP = null, LITERAL = "$${HOME}" }
  labels = { "org.opencontainers.image.title" = "app" }
  annotations = ["index,manifest:a=b"]
  attest = [{ type = "provenance", mode = "max" }, { type = "sbom" }]
  cache-from = ["user/repo:cache", { type = "s3", region = "eu-west-1", bucket = "b" }]
  cache-to = ["type=inline"]
  secret = ["type=env,id=KEY", { id = "aws", src = "aws.txt" }]
  ssh = [{ id = "default" }, "key=a.pem,b.pem"]
  ulimits = ["nofile=1024:1024"]
  extra-hosts = { "db.local" = "10.0.0.1" }
}
target "app" {
  inherits = ["_base"]
  description = "the app"
  context = "./app"
  dockerfile = "app.Dockerfile"
  platforms = PLATFORMS
  tags = tagged("app", "1.0")
  args = { NOTHING = NOTHING, LEVEL = "${target._base.args.LEVEL}-app" }
  attest = ["type=provenance,disabled=true"]
  output = ["type=oci,dest=app.tar", { type = "image", name = "x" }]
  pull = true
  no-cache = false
  no-cache-filter = ["deps"]
  shm-size = "128m"
  network = "host"
  call = "check"
  target = "final"
}
target "lib" {
  contexts = {
    base = "docker-image://debian"
    tool = "target:tool"
    gone = ""
  }
  dockerfile-inline = <<-EOT
    FROM base
    COPY --from=tool /x /%%{y}
  EOT
}
target "tool" {
  context = "https://git.example/tool.git#main"
}
