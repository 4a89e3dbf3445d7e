# What a script asks of Ruby: text, JSON and YAML, compression, hashes and ciphers, time zones, threads.
require "digest"
require "json"
require "openssl"
require "yaml"
require "zlib"
puts Encoding.default_external, "größe".upcase
puts JSON.dump(YAML.load("a: [1, ä]"))
puts Zlib.inflate(Zlib.deflate("x" * 9999)).size, Digest::SHA256.hexdigest("a")[0, 8]
cipher = OpenSSL::Cipher.new("aes-256-gcm").encrypt
cipher.key, cipher.iv = "k" * 32, "n" * 12
puts (cipher.update("text") + cipher.final).unpack1("H*")
ENV["TZ"] = "Europe/Berlin"
puts Time.at(0).strftime("%H:%M %Z"), (1..4).map { |n| Thread.new { n * n } }.sum(&:value)
