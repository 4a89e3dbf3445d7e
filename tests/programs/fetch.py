"""A page by HTTPS, with the trust that the image has."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1]) as page:
    print(page.status, page.read().decode())
