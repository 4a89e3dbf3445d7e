/* What a program of C asks of a base: accounts, time zones, encodings, threads, names; linked statically and dynamically. */
#include <errno.h>
#include <iconv.h>
#include <locale.h>
#include <math.h>
#include <netdb.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void *square(void *number) {
    long n = (long)number;
    return (void *)(n * n);
}

int main(void) {
    struct passwd *who = getpwuid(getuid());
    printf("user %s %s\n", who ? who->pw_name : "?", who ? who->pw_dir : "?");
    setenv("TZ", "Europe/Berlin", 1);
    time_t start = 0;
    char text[64];
    strftime(text, sizeof text, "%H:%M %Z", localtime(&start));
    printf("zone %s\n", text);
    printf("locale %s\n", setlocale(LC_ALL, "C.UTF-8") ? "yes" : "no");
    char from[] = "h\xc3\xa4", to[16], *in = from, *out = to;
    size_t left = strlen(from), space = sizeof to;
    iconv_t codec = iconv_open("UTF-16LE", "UTF-8");
    if (codec == (iconv_t)-1 || iconv(codec, &in, &left, &out, &space) == (size_t)-1) perror("iconv");
    printf("encoded %zu\n", sizeof to - space);
    pthread_t threads[4];
    long total = 0;
    for (long n = 0; n < 4; n++) pthread_create(&threads[n], NULL, square, (void *)n);
    for (int n = 0; n < 4; n++) {
        void *result;
        pthread_join(threads[n], &result);
        total += (long)result;
    }
    volatile double two = 2;
    printf("threads %ld root %.3f\n", total, sqrt(two));
    struct servent *service = getservbyname("https", "tcp");
    printf("https %d\n", service ? (service->s_port >> 8 & 255) | (service->s_port & 255) << 8 : 0);
    return 0;
}
