# What a script asks of Perl: text, JSON, compression, hashes, time zones, processes.
use strict;
use utf8;
use Compress::Zlib;
use Digest::SHA qw(sha256_hex);
use Encode;
use JSON::PP;
use POSIX qw(strftime tzset);
use Storable qw(dclone);
binmode STDOUT, ":utf8";
print JSON::PP->new->canonical->encode(dclone({a => [1, "ä"]})), " ", length("größe"), " ", uc("größe"), "\n";
print length(uncompress(compress("x" x 9999))), " ", substr(sha256_hex("a"), 0, 8), "\n";
$ENV{TZ} = "Europe/Berlin";
tzset();
print strftime("%H:%M %Z", localtime(0)), "\n";
open(my $child, "-|") // die $! or do { print "child\n"; exit };
print <$child>, "größe" =~ /^\p{L}+$/ ? "letters" : "none", " ", (getpwuid($<))[0], "\n";
