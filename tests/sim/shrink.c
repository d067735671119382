#include "shrink.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALL_SECONDS = 60 };

static unsigned n_tries;

static unsigned seconds_left(void)
{
    struct rusage used; /* processor time: a loaded machine makes it no less small */
    getrusage(RUSAGE_CHILDREN, &used);
    long s = used.ru_utime.tv_sec + used.ru_stime.tv_sec;
    return s < ALL_SECONDS ? (unsigned)(ALL_SECONDS - s) : 0;
}

bool shrink_is_over(void)
{
    return !seconds_left();
}

static int wait_for(pid_t child)
{
    int status = 0;
    bool told = isatty(2);
    if (told)
        fprintf(stderr, "making it smaller: run %u, %u s left ", ++n_tries, seconds_left());
    while (waitpid(child, &status, 0) != child)
        ;
    if (told)
        fprintf(stderr, "\r\033[K");
    return status;
}

bool shrink_fails(void (*try)(void *arg), void *arg)
{
    unsigned seconds = seconds_left();
    fflush(stdout);
    pid_t child = seconds ? fork() : -1;
    if (child < 0)
        return false;
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, 1);
        dup2(nowhere, 2);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        struct itimerval limit = { .it_value.tv_sec = seconds };
        setitimer(ITIMER_PROF, &limit, NULL); /* execve() keeps it */
        try(arg);
        _exit(0);
    }
    int status = wait_for(child);
    return WIFEXITED(status) ? WEXITSTATUS(status) == 1 : WIFSIGNALED(status) && WTERMSIG(status) != SIGPROF;
}

bool shrink_number(uint64_t lo, uint64_t hi, void (*set)(void *arg, uint64_t n), void (*try)(void *arg), void *arg)
{
    set(arg, hi);
    if (!shrink_fails(try, arg))
        return false;
    for (unsigned tries = 0; lo < hi && tries < 12; tries++) {
        uint64_t half = lo + (hi - lo) / 2;
        set(arg, half);
        if (shrink_fails(try, arg))
            hi = half;
        else
            lo = half + 1;
    }
    set(arg, hi);
    return true;
}
