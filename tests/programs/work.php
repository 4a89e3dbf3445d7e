<?php
// What a script asks of PHP: text, JSON, compression, hashes and ciphers, time zones, archives of its own.
echo json_encode(["a" => [1, "ä"]], JSON_UNESCAPED_UNICODE), " ", iconv_strlen("größe", "UTF-8"), "\n";
echo strlen(gzuncompress(gzcompress(str_repeat("x", 9999)))), " ", substr(hash("sha256", "a"), 0, 8), "\n";
echo bin2hex(openssl_encrypt("text", "aes-256-gcm", str_repeat("k", 32), OPENSSL_RAW_DATA, str_repeat("n", 12), $tag)), "\n";
echo (new DateTime("@0"))->setTimezone(new DateTimeZone("Europe/Berlin"))->format("H:i T"), "\n";
$key = openssl_pkey_new(["private_key_type" => OPENSSL_KEYTYPE_EC, "curve_name" => "prime256v1"]);
$asked = openssl_csr_new(["commonName" => "größe"], $key, ["digest_alg" => "sha256"]);
echo openssl_csr_get_subject($asked)["CN"], " ", openssl_pkey_get_details(openssl_pkey_new())["bits"], "\n";
openssl_sign("text", $signature, $key, "sha256");
echo openssl_verify("text", $signature, openssl_pkey_get_details($key)["key"], "sha256"), "\n";
foreach (["ctype", "fileinfo", "pdo", "phar", "posix", "sockets", "tokenizer"] as $name) echo extension_loaded($name) ? "" : $name;
echo preg_match('/^\p{L}+$/u', "größe"), posix_getpwuid(posix_getuid())["name"], "\n";
