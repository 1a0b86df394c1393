/* A service that chrek can freeze when it is loaded.
 *     cc -I include -o ready examples/ready.c
 *     sudo chrek run --name ready-c --ready file:ready -- ./ready
 * (without -I once `make install` has put chrek.h in its place)
 * The first run loads for three seconds; every later one goes on behind chrek_wait(). */
#include <chrek.h>

int main(void)
{
    unsigned seed = 0;
    char user[256] = "unknown";
    sleep(3); /* what takes long */
    (void)chrek_ready();
    if (chrek_wait(-1) == CHREK_RESTORED) {
        (void)chrek_random(&seed, sizeof(seed)); /* or every copy draws the same numbers */
        printf("restored as number %lld\n", (long long)chrek_generation());
    }
    srand(seed);
    (void)chrek_getenv("USER", user, sizeof(user));
    printf("serving, lot %d, started by %s\n", rand() % 1000, user);
    return 0;
}
