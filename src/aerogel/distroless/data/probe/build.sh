# Compiles probe.c for every machine, or for those named behind the folder: sh build.sh FOLDER [amd64 arm64 ...]
# The programs in this folder were made by gcc 12.2 of Debian 12; another one makes others that do the same.
set -eu
out=$1
shift
mkdir -p "$out"
for arch in ${*:-amd64 arm64 armhf ppc64el riscv64 s390x}; do
    flags=
    case $arch in
    amd64) tool=x86_64-linux-gnu flags=-fcf-protection=none ;;
    arm64) tool=aarch64-linux-gnu flags=-mno-outline-atomics ;;
    armhf) tool=arm-linux-gnueabihf flags=-marm ;;
    ppc64el) tool=powerpc64le-linux-gnu ;;
    riscv64) tool=riscv64-linux-gnu ;;
    s390x) tool=s390x-linux-gnu ;;
    esac
    "$tool-gcc" -std=c11 -Os -Wall -Wextra -Werror $flags \
        -ffreestanding -fno-builtin -fno-pic -fno-pie -fno-stack-protector -fno-ident \
        -fno-asynchronous-unwind-tables -fno-unwind-tables -ffunction-sections \
        -nostdlib -static -no-pie -Wl,--build-id=none -Wl,--gc-sections -Wl,-s \
        -Wl,-z,noseparate-code -Wl,-z,norelro -Wl,-z,noexecstack -Wl,-z,max-page-size=65536 \
        -o "$out/aerogel-probe-$arch" probe.c -lgcc
done
