/* Says who it is in effect: the program that a hostile image makes set-uid root. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("%u\n", geteuid());
    return 0;
}
