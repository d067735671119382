/* Signal names as Docker takes them: with or without SIG, numbers, RTMIN+n and RTMAX-n. */
#include "runtime_internal.h"
#include <signal.h>
#include <strings.h>

static const struct { const char *name; int number; } signals[] = {
    { "HUP", SIGHUP }, { "INT", SIGINT }, { "QUIT", SIGQUIT }, { "ILL", SIGILL }, { "TRAP", SIGTRAP },
    { "ABRT", SIGABRT }, { "BUS", SIGBUS }, { "FPE", SIGFPE }, { "KILL", SIGKILL }, { "USR1", SIGUSR1 },
    { "SEGV", SIGSEGV }, { "USR2", SIGUSR2 }, { "PIPE", SIGPIPE }, { "ALRM", SIGALRM }, { "TERM", SIGTERM },
    { "CHLD", SIGCHLD }, { "CONT", SIGCONT }, { "STOP", SIGSTOP }, { "TSTP", SIGTSTP }, { "TTIN", SIGTTIN },
    { "TTOU", SIGTTOU }, { "URG", SIGURG }, { "XCPU", SIGXCPU }, { "XFSZ", SIGXFSZ }, { "VTALRM", SIGVTALRM },
    { "PROF", SIGPROF }, { "WINCH", SIGWINCH }, { "IO", SIGIO }, { "PWR", SIGPWR }, { "SYS", SIGSYS },
};
enum { RT_MIN = 34, RT_MAX = 64 }; /* as the C library numbers them for programs */

int signal_number(const char *text, struct err *e)
{
    uint64_t n;
    const char *bare = text;
    if (str_u64(text, 1, RT_MAX, &n))
        return (int)n;
    if (strncasecmp(bare, "SIG", 3) == 0)
        bare += 3;
    for (unsigned i = 0; i < ARRAY_N(signals); i++)
        if (strcasecmp(bare, signals[i].name) == 0)
            return signals[i].number;
    if (strcasecmp(bare, "RTMIN") == 0)
        return RT_MIN;
    if (strcasecmp(bare, "RTMAX") == 0)
        return RT_MAX;
    if (strncasecmp(bare, "RTMIN+", 6) == 0 && str_u64(bare + 6, 1, RT_MAX - RT_MIN, &n))
        return RT_MIN + (int)n;
    if (strncasecmp(bare, "RTMAX-", 6) == 0 && str_u64(bare + 6, 1, RT_MAX - RT_MIN, &n))
        return RT_MAX - (int)n;
    return err_set(e, E_INVALID, "unknown signal \"%s\"; use a name such as SIGTERM or a number up to 64", text);
}
