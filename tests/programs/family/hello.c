#include <stdio.h>

int main(void) { return puts("Hello from distroless C!") < 0; }
