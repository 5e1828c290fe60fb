/* A parser with bugs on purpose: `planted BUG [FILE]` reads FILE or its input and has its bug at the byte Z. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned char input[65536];
static size_t length;

static int at(size_t place) { return place < length && input[place] == 'Z'; }

static void crash(void) { *(volatile int *)0 = 1; }

static void overflow(size_t size) {
    char *copy = malloc(4);
    memset(copy, 0, 4);
    copy[size + 4] = 1;
    free(copy);
}

static void bug(const char *name, size_t place) {
    if (strcmp(name, "signal") == 0) crash();
    if (strcmp(name, "assert") == 0) assert(place > length);
    if (strcmp(name, "exit3") == 0) exit(3);
    if (strcmp(name, "exit1") == 0) exit(1);
    if (strcmp(name, "hang") == 0) { printf("going to sleep\n"); fflush(stdout); for (;;) pause(); }
    if (strcmp(name, "overflow") == 0) overflow(place);
    if (strcmp(name, "report") == 0) {
        fprintf(stderr, "=================================================================\n"
            "==%d==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x%x at pc 0x1 bp 0x2 sp 0x3\n"
            "READ of size 1 at 0x602000000014 thread T0\n"
            "    #0 0x55555 in __interceptor_memcpy (/lib/libasan.so.8+0x1234)\n"
            "    #1 0x55556 in parse /src/parse.c:%zu\n    #2 0x55557 in main /src/main.c:5\n\n", getpid(), getpid(), place);
        exit(1);
    }
}

int main(int count, char **words) {
    FILE *file = count > 2 ? fopen(words[2], "rb") : stdin;
    if (file == NULL) return 9;
    length = fread(input, 1, sizeof input, file);
    for (size_t place = 0; place < length; place++)
        if (at(place)) bug(words[1], place);
    return 0;
}
