# A page by HTTPS, with the trust that the image has.
require "net/http"
page = Net::HTTP.get_response(URI(ARGV[0]))
puts "#{page.code} #{page.body}"
