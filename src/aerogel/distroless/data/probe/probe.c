/* A health check for images that have neither a shell nor curl: http, tcp, file. One static program without libc.
 *
 *     aerogel-probe http 127.0.0.1:8080/health [--status 200-299,304] [--header 'Name: value'] [--timeout 3]
 *     aerogel-probe tcp [::1]:5432
 *     aerogel-probe file /run/ready [--max-age 60]
 *
 * Exit status: 0 well, 1 not well, 2 wrong words. What is found goes to standard output, which HEALTHCHECK keeps.
 * Names are not looked up: an address is IPv4, [IPv6] or `localhost`, which is 127.0.0.1 and then ::1.
 * Six machines of Linux: x86-64, arm64, armhf (EABI), s390x, ppc64le, riscv64. Built by Dockerfile beside this file.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long word;

/* The kernel: numbers of Linux 4.11 (statx) and later; arch/.../syscall tables. */

#if defined(__x86_64__)
enum { SYS_read = 0, SYS_write = 1, SYS_socket = 41, SYS_connect = 42, SYS_getsockopt = 55, SYS_clock_gettime = 228,
       SYS_exit_group = 231, SYS_ppoll = 271, SYS_statx = 332, SYS_close = 3 };
static word call(word n, word a, word b, word c, word d, word e)
{
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    word out;
    __asm__ volatile("syscall" : "=a"(out) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return out;
}
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");

#elif defined(__aarch64__) || defined(__riscv)
enum { SYS_read = 63, SYS_write = 64, SYS_socket = 198, SYS_connect = 203, SYS_getsockopt = 209, SYS_clock_gettime = 113,
       SYS_exit_group = 94, SYS_ppoll = 73, SYS_statx = 291, SYS_close = 57 };
#if defined(__aarch64__)
static word call(word n, word a, word b, word c, word d, word e)
{
    register word x8 __asm__("x8") = n;
    register word x0 __asm__("x0") = a;
    register word x1 __asm__("x1") = b;
    register word x2 __asm__("x2") = c;
    register word x3 __asm__("x3") = d;
    register word x4 __asm__("x4") = e;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
__asm__(".globl _start\n_start: mov x29, #0\n mov x30, #0\n mov x0, sp\n b begin\n");
#else
static word call(word n, word a, word b, word c, word d, word e)
{
    register word a7 __asm__("a7") = n;
    register word a0 __asm__("a0") = a;
    register word a1 __asm__("a1") = b;
    register word a2 __asm__("a2") = c;
    register word a3 __asm__("a3") = d;
    register word a4 __asm__("a4") = e;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
    return a0;
}
__asm__(".globl _start\n_start: .option push\n .option norelax\n lla gp, __global_pointer$\n .option pop\n"
        " mv a0, sp\n andi sp, sp, -16\n call begin\n");
#endif

#elif defined(__arm__)
enum { SYS_read = 3, SYS_write = 4, SYS_socket = 281, SYS_connect = 283, SYS_getsockopt = 295, SYS_clock_gettime = 263,
       SYS_exit_group = 248, SYS_ppoll = 336, SYS_statx = 397, SYS_close = 6 };
static word call(word n, word a, word b, word c, word d, word e)
{
    register word r7 __asm__("r7") = n;
    register word r0 __asm__("r0") = a;
    register word r1 __asm__("r1") = b;
    register word r2 __asm__("r2") = c;
    register word r3 __asm__("r3") = d;
    register word r4 __asm__("r4") = e;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4) : "memory");
    return r0;
}
__asm__(".syntax unified\n.arm\n.globl _start\n.type _start, %function\n_start: mov fp, #0\n mov lr, #0\n mov r0, sp\n"
        " bic sp, sp, #7\n bl begin\n");

#elif defined(__s390x__)
enum { SYS_read = 3, SYS_write = 4, SYS_socket = 359, SYS_connect = 362, SYS_getsockopt = 365, SYS_clock_gettime = 260,
       SYS_exit_group = 248, SYS_ppoll = 302, SYS_statx = 379, SYS_close = 6 };
static word call(word n, word a, word b, word c, word d, word e)
{
    register word r1 __asm__("r1") = n;
    register word r2 __asm__("r2") = a;
    register word r3 __asm__("r3") = b;
    register word r4 __asm__("r4") = c;
    register word r5 __asm__("r5") = d;
    register word r6 __asm__("r6") = e;
    __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5), "d"(r6) : "memory");
    return r2;
}
__asm__(".globl _start\n_start: lgr %r2, %r15\n aghi %r15, -160\n lghi %r0, 0\n stg %r0, 0(%r15)\n brasl %r14, begin\n");

#elif defined(__powerpc64__)
enum { SYS_read = 3, SYS_write = 4, SYS_socket = 326, SYS_connect = 328, SYS_getsockopt = 340, SYS_clock_gettime = 246,
       SYS_exit_group = 234, SYS_ppoll = 281, SYS_statx = 383, SYS_close = 6 };
static word call(word n, word a, word b, word c, word d, word e)
{
    register word r0 __asm__("r0") = n;
    register word r3 __asm__("r3") = a;
    register word r4 __asm__("r4") = b;
    register word r5 __asm__("r5") = c;
    register word r6 __asm__("r6") = d;
    register word r7 __asm__("r7") = e;
    __asm__ volatile("sc\n bns+ 1f\n neg 3, 3\n1:"
                     : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7)
                     :
                     : "cr0", "ctr", "r8", "r9", "r10", "r11", "r12", "memory");
    return r3;
}
/* ELFv2: the kernel leaves the entry in r12, from which the table of contents is found. */
__asm__(".globl _start\n.type _start, @function\n_start: addis 2, 12, .TOC.-_start@ha\n addi 2, 2, .TOC.-_start@l\n"
        " mr 3, 1\n clrrdi 1, 1, 4\n li 0, 0\n stdu 0, -128(1)\n mtlr 0\n bl begin\n nop\n");
#else
#error "no system calls are known for this machine"
#endif

enum { AF_INET = 2, AF_INET6 = 10, STREAM = 1, NONBLOCK = 04000, CLOEXEC = 02000000, SOL_SOCKET = 1, SO_ERROR = 4 };
enum { REALTIME = 0, MONOTONIC = 1, POLLIN = 1, POLLOUT = 4, EAGAIN = 11, EINTR = 4, EINPROGRESS = 115, AT_FDCWD = -100 };
enum { WELL = 0, UNWELL = 1, WRONG = 2, MOST_HEADERS = 16, MOST_RANGES = 16 };

struct timespec { word s, ns; };
struct pollfd { int fd; short events, revents; };

/* What gcc may call for copies and clearing. */
void *memset(void *to, int byte, unsigned long size)
{
    for (volatile u8 *at = to; size; size--) *at++ = (u8)byte;
    return to;
}
void *memcpy(void *to, const void *from, unsigned long size)
{
    volatile u8 *at = to;
    for (const u8 *source = from; size; size--) *at++ = *source++;
    return to;
}

#if defined(__arm__)
int raise(int signal); /* libgcc's division calls it for a division by zero, of which there is none */
int raise(int signal)
{
    call(SYS_exit_group, 128 + signal, 0, 0, 0, 0);
    return 0;
}
#endif

static int equal(const char *one, const char *other)
{
    while (*one && *one == *other) one++, other++;
    return *one == *other;
}

/* Output, in one piece. */

static char said[512];
static word said_size;

static void say(const char *text)
{
    while (*text && said_size < (word)sizeof said - 1) {
        char c = *text++;
        said[said_size++] = (c >= ' ' && c < 127) ? c : '?';
    }
}

static void say_number(word number)
{
    char digits[24];
    int at = sizeof digits;
    digits[--at] = 0;
    do digits[--at] = (char)('0' + number % 10); while (number /= 10);
    say(digits + at);
}

__attribute__((noreturn)) static void end(int status)
{
    said[said_size++] = '\n';
    call(SYS_write, status == WRONG ? 2 : 1, (word)said, said_size, 0, 0);
    for (;;) call(SYS_exit_group, status, 0, 0, 0, 0);
}

__attribute__((noreturn)) static void wrong(const char *what, const char *text)
{
    say("aerogel-probe: ");
    say(what);
    if (text) { say(" `"); say(text); say("`"); }
    say("; the form is: aerogel-probe http ADDRESS:PORT/PATH [--status 200-399] [--header 'NAME: VALUE'] [--timeout 3]"
        " | tcp ADDRESS:PORT [--timeout 3] | file PATH [--max-age SECONDS]");
    end(WRONG);
}

static const char *reason(word error)
{
    switch (error) {
    case 2: return "it is not there";
    case 13: return "permission denied";
    case 97: return "address family not supported";
    case 101: return "network unreachable";
    case 104: return "connection reset";
    case 110: return "timed out";
    case 111: return "connection refused";
    case 113: return "no route to host";
    }
    return 0;
}

__attribute__((noreturn)) static void unwell(const char *what, const char *text, word error)
{
    say(what);
    if (text) { say(" "); say(text); }
    if (error) {
        const char *why = reason(error);
        say(": ");
        if (why) say(why); else { say("error "); say_number(error); }
    }
    end(UNWELL);
}

/* Numbers and addresses. */

static word number(const char **at, word most)
{
    word value = 0;
    const char *text = *at;
    if (*text < '0' || *text > '9') return -1;
    for (; *text >= '0' && *text <= '9'; text++) {
        value = value * 10 + (*text - '0');
        if (value > most) return -1;
    }
    *at = text;
    return value;
}

static word whole_number(const char *text, word most)
{
    word value = number(&text, most);
    return *text ? -1 : value;
}

struct address {
    u8 ip[16];
    int is_six, is_local;
    word port;
};

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int four(const char **at, u8 *to)
{
    for (int part = 0; part < 4; part++) {
        if (part && *(*at)++ != '.') return 0;
        word value = number(at, 255);
        if (value < 0) return 0;
        to[part] = (u8)value;
    }
    return 1;
}

/* RFC 4291, 2.2: groups of hexadecimal digits, one `::`, and the last 32 bits may be in the form of IPv4. */
static int six(const char **at, u8 *to)
{
    u16 groups[8];
    int count = 0, gap = -1;
    const char *text = *at;
    if (text[0] == ':' && text[1] == ':') { gap = 0; text += 2; }
    while (count < 8 && hex(*text) >= 0) {
        const char *start = text;
        u8 old[4];
        u32 value = 0;
        while (hex(*text) >= 0 && text - start < 4) value = value * 16 + (u32)hex(*text++);
        if (*text == '.') {
            text = start;
            if (count > 6 || !four(&text, old)) return 0;
            groups[count++] = (u16)(old[0] << 8 | old[1]);
            groups[count++] = (u16)(old[2] << 8 | old[3]);
            break;
        }
        groups[count++] = (u16)value;
        if (*text != ':' ) break;
        if (text[1] == ':') {
            if (gap >= 0) return 0;
            gap = count;
            text += 2;
        } else if (hex(text[1]) >= 0) text++;
        else return 0;
    }
    if (gap < 0 ? count != 8 : count > 7) return 0;
    for (int group = 0; group < 8; group++) {
        int from = group < gap || gap < 0 ? group : group - (8 - count);
        u16 value = (group >= gap && gap >= 0 && group < gap + 8 - count) ? 0 : groups[from];
        to[2 * group] = (u8)(value >> 8);
        to[2 * group + 1] = (u8)value;
    }
    *at = text;
    return 1;
}

/* ADDRESS:PORT; what comes behind it is returned. */
static const char *parse(const char *text, struct address *to, word port)
{
    const char *at = text, *local = "localhost";
    int count = 0;
    while (local[count] && at[count] == local[count]) count++;
    if (!local[count]) {
        at += count;
        to->is_local = 1;
        to->ip[0] = 127;
        to->ip[3] = 1;
    } else if (*at == '[') {
        at++;
        to->is_six = 1;
        if (!six(&at, to->ip) || *at++ != ']') wrong("no address is", text);
    } else if (!four(&at, to->ip))
        wrong("names are not looked up: write an address or `localhost`, not", text);
    if (*at == ':') {
        at++;
        port = number(&at, 65535);
    }
    if (port <= 0) wrong("no port from 1 to 65535 is in", text);
    to->port = port;
    return at;
}

/* Time. */

static word now_ms(int clock)
{
    struct timespec time;
    call(SYS_clock_gettime, clock, (word)&time, 0, 0, 0);
    /* Only differences count: on 32 bits the number goes round after 24 days. */
    return (word)((u32)time.s * 1000u + (u32)time.ns / 1000000u) & 0x7fffffff;
}

static word deadline_ms;

static word left_ms(void)
{
    word left = (deadline_ms - now_ms(MONOTONIC)) & 0x7fffffff;
    return left > 0x3fffffff ? 0 : left;
}

static void wait_for(int fd, short events, const char *what, const char *text)
{
    for (;;) {
        word left = left_ms();
        struct timespec time = {left / 1000, left % 1000 * 1000000};
        struct pollfd poll = {fd, events, 0};
        word found = call(SYS_ppoll, (word)&poll, 1, (word)&time, 0, 8);
        if (found > 0) return;
        if (found == 0 || !left) unwell(what, text, 110);
        if (found != -EINTR) unwell(what, text, -found);
    }
}

/* Connections. */

static word attempt(const struct address *to, int *fd)
{
    u8 name[28] = {0};
    u16 family = to->is_six ? AF_INET6 : AF_INET;
    int size = to->is_six ? 28 : 16;
    memcpy(name, &family, 2);
    name[2] = (u8)(to->port >> 8);
    name[3] = (u8)to->port;
    memcpy(name + (to->is_six ? 8 : 4), to->ip, to->is_six ? 16 : 4);
    word made = call(SYS_socket, family, STREAM | NONBLOCK | CLOEXEC, 0, 0, 0);
    if (made < 0) return -made;
    *fd = (int)made;
    word error = -call(SYS_connect, made, (word)name, size, 0, 0);
    if (error == EINPROGRESS || error == EINTR) {
        u32 found = 0, found_size = sizeof found;
        wait_for(*fd, POLLOUT, "no connection", 0);
        call(SYS_getsockopt, made, SOL_SOCKET, SO_ERROR, (word)&found, (word)&found_size);
        error = (word)found;
    }
    if (error) call(SYS_close, made, 0, 0, 0, 0);
    return error;
}

static int connected(struct address *to, const char *text)
{
    int fd = -1;
    word error = attempt(to, &fd);
    if (error && to->is_local) {
        memset(to->ip, 0, 16);
        to->ip[15] = 1;
        to->is_six = 1;
        if (!attempt(to, &fd)) return fd;
    }
    if (error) unwell("no connection to", text, error);
    return fd;
}

static void send_all(int fd, const char *data, word size, const char *text)
{
    while (size) {
        word sent = call(SYS_write, fd, (word)data, size, 0, 0);
        if (sent == -EAGAIN) wait_for(fd, POLLOUT, "no request could be sent to", text);
        else if (sent < 0 && sent != -EINTR) unwell("no request could be sent to", text, -sent);
        else if (sent > 0) data += sent, size -= sent;
    }
}

/* Words. */

static const char *headers[MOST_HEADERS];
static word ranges[MOST_RANGES][2];
static int header_count, range_count;
static word timeout_ms = 3000, max_age = -1;

static void add_ranges(const char *text)
{
    const char *at = text;
    do {
        if (range_count == MOST_RANGES) wrong("too many ranges are in", text);
        word first = number(&at, 999), last = first;
        if (*at == '-') { at++; last = number(&at, 999); }
        if (first < 100 || last < first) wrong("no statuses are", text);
        ranges[range_count][0] = first;
        ranges[range_count++][1] = last;
    } while (*at++ == ',');
    if (at[-1]) wrong("no statuses are", text);
}

static void add_header(const char *text)
{
    const char *at = text;
    if (header_count == MOST_HEADERS) wrong("too many headers, the last of which is", text);
    while (*at > ' ' && *at != ':' && *at < 127) at++;
    if (at == text || *at != ':') wrong("no header is", text);
    for (; *at; at++)
        if ((u8)*at < ' ' || *at == 127) wrong("no header is", text);
    headers[header_count++] = text;
}

static int is_host(const char *header)
{
    const char *host = "host:";
    while (*host && (*header | 32) == (*host | 32)) header++, host++;
    return !*host;
}

/* The three checks. */

__attribute__((noreturn)) static void http(const char *text)
{
    static char request[8192], answer[64];
    struct address to = {{0}, 0, 0, 0};
    word size = 0, got = 0;
    const char *prefix = "http://";
    int skip = 0;
    while (prefix[skip] && text[skip] == prefix[skip]) skip++;
    if (!prefix[skip]) text += skip;
    const char *path = parse(text, &to, 80);
    if (*path && *path != '/' && *path != '?') wrong("no path begins like", path);
    for (const char *at = path; *at; at++)
        if ((u8)*at <= ' ' || *at == 127) wrong("a blank or control character is in", path);
    const char *parts[8 + 2 * MOST_HEADERS];
    int count = 0, has_host = 0;
    parts[count++] = "GET ";
    parts[count++] = *path == '/' ? "" : "/";
    parts[count++] = path;
    parts[count++] = " HTTP/1.1\r\nConnection: close\r\nUser-Agent: aerogel-probe\r\n";
    for (int each = 0; each < header_count; each++) {
        has_host |= is_host(headers[each]);
        parts[count++] = headers[each];
        parts[count++] = "\r\n";
    }
    for (int each = 0; each < count; each++)
        for (const char *at = parts[each]; *at; at++) {
            if (size > (word)sizeof request - 512) wrong("the request is too long", 0);
            request[size++] = *at;
        }
    if (!has_host) {
        for (const char *at = "Host: "; *at; at++) request[size++] = *at;
        for (const char *at = text; at < path && size < (word)sizeof request - 8; at++) request[size++] = *at;
        request[size++] = '\r';
        request[size++] = '\n';
    }
    request[size++] = '\r';
    request[size++] = '\n';
    int fd = connected(&to, text);
    send_all(fd, request, size, text);
    while (got < 13) {
        word found = call(SYS_read, fd, (word)(answer + got), (word)sizeof answer - 1 - got, 0, 0);
        if (found == -EAGAIN) wait_for(fd, POLLIN, "no answer from", text);
        else if (found < 0 && found != -EINTR) unwell("no answer from", text, -found);
        else if (found == 0) break;
        else if (found > 0) got += found;
    }
    /* RFC 9112, 4: `HTTP/1.1 200`. */
    const char *form = "HTTP/1.";
    for (int each = 0; form[each]; each++)
        if (answer[each] != form[each]) unwell("what answers at this address does not speak HTTP:", text, 0);
    const char *at = answer + 8;
    word status = *at == ' ' ? (at++, number(&at, 999)) : -1;
    if (status < 100 || (*at && *at != ' ' && *at != '\r')) unwell("what answers at this address does not speak HTTP:", text, 0);
    say("status ");
    say_number(status);
    for (int each = 0; each < range_count; each++)
        if (status >= ranges[each][0] && status <= ranges[each][1]) end(WELL);
    unwell(" of", text, 0);
}

__attribute__((noreturn)) static void tcp(const char *text)
{
    struct address to = {{0}, 0, 0, 0};
    const char *rest = parse(text, &to, 0);
    if (*rest) wrong("more than an address and a port is", text);
    connected(&to, text);
    say("connected to ");
    say(text);
    end(WELL);
}

__attribute__((noreturn)) static void file(const char *path)
{
    /* struct statx: bytes 112 to 119 are the seconds of the last change of the content. */
    static u64 found[32];
    word error = -call(SYS_statx, AT_FDCWD, (word)path, 0, 0x7ff, (word)found);
    if (error) unwell("no file", path, error);
    if (max_age >= 0) {
        struct timespec time;
        call(SYS_clock_gettime, REALTIME, (word)&time, 0, 0, 0);
        word age = (word)((u32)time.s - (u32)found[14]);
        if (age > max_age) {
            say(path);
            say(" is ");
            say_number(age);
            unwell(" s old", 0, 0);
        }
    }
    say(path);
    say(" is there");
    end(WELL);
}

__attribute__((noreturn, used)) void begin(word *stack)
{
    char **words = (char **)(stack + 1);
    word count = stack[0];
    const char *kind = 0, *what = 0;
    for (word at = 1; at < count; at++) {
        const char *text = words[at];
        if (text[0] != '-' || text[1] != '-') {
            if (!kind) kind = text;
            else if (!what) what = text;
            else wrong("one word too many is", text);
            continue;
        }
        const char *value = 0;
        char name[16];
        word size = 0;
        while (text[size] && text[size] != '=' && size < 15) { name[size] = text[size]; size++; }
        name[size] = 0;
        if (text[size] == '=') value = text + size + 1;
        else if (!text[size]) value = at + 1 < count ? words[++at] : 0;
        if (!value) wrong("a value is missing behind", text);
        if (equal(name, "--timeout")) {
            timeout_ms = whole_number(value, 86400) * 1000;
            if (timeout_ms <= 0) wrong("no number of seconds is", value);
        } else if (equal(name, "--status")) add_ranges(value);
        else if (equal(name, "--header")) add_header(value);
        else if (equal(name, "--max-age")) {
            max_age = whole_number(value, 0x7fffffff / 10);
            if (max_age < 0) wrong("no number of seconds is", value);
        } else wrong("no option is", text);
    }
    if (!kind) wrong("what to check is missing", 0);
    int is_http = equal(kind, "http"), is_file = equal(kind, "file");
    if (!is_http && !is_file && !equal(kind, "tcp")) wrong("nothing to check is", kind);
    if (!what || !*what) wrong(is_file ? "a path is missing" : "an address is missing", 0);
    if (!is_http && (range_count || header_count)) wrong("`--status` and `--header` are for http", 0);
    if (!is_file && max_age >= 0) wrong("`--max-age` is for file", 0);
    if (!range_count) add_ranges("200-399");
    deadline_ms = (now_ms(MONOTONIC) + timeout_ms) & 0x7fffffff;
    if (is_http) http(what);
    if (is_file) file(what);
    tcp(what);
}
