# A page by HTTPS, with the trust that the image has.
use strict;
use HTTP::Tiny;
my $page = HTTP::Tiny->new(verify_SSL => 1)->get($ARGV[0]);
print "$page->{status} $page->{content}\n";
exit($page->{success} ? 0 : 1);
