/* The one program of the image that has no shell. */
#include <stdio.h>

int main(int argc, char **argv) {
    printf("hello from a box without a shell");
    for (int i = 1; i < argc; i++)
        printf(" %s", argv[i]);
    putchar('\n');
    return 0;
}
