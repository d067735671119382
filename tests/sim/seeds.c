#include "seeds.h"
#include "shrink.h"

#include <shoal/base/mem.h>
#include <shoal/base/sb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define U(x) ((unsigned long long)(x))

enum { WORDS_MAX = 32 };

/* Of the sanitizers, where they are: their reports end the program past all handlers. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static struct seeds *sim;
static uint64_t count, seed_now, passed, without;
static bool one, once, verbose, is_running, is_second, may_shrink = true;

/* ---- a seed that failed ---- */
static void replay_line(struct sb *b)
{
    sb_printf(b, "%s%s --seed %llu", sim->program, sim->bug ? "_planted" : "", U(seed_now));
    if (sim->bug)
        sb_printf(b, " --bug %d", *sim->bug);
    for (unsigned i = 0, n = 0; i < sim->n_kinds; i++)
        if (!has_kind(i))
            sb_printf(b, "%s%s", n++ ? "," : " --without ", sim->kinds[i]);
    for (unsigned i = 0; i < sim->n_limits; i++)
        if (sim->limits[i].most != UINT64_MAX)
            sb_printf(b, " %s %llu", sim->limits[i].option, U(sim->limits[i].most));
}

/* What is tried is what people will be told to run, in a process that knows nothing of this one. */
static void try(void *arg)
{
    AUTO_SB struct sb b;
    char *argv[WORDS_MAX + 1] = { NULL };
    sigset_t none;
    (void)arg;
    sb_init(&b, 0);
    replay_line(&b);
    sb_printf(&b, " --no-shrink%s", is_second ? "" : " --once");
    char *rest = b.s;
    for (unsigned n = 0; rest && n < WORDS_MAX; n++)
        argv[n] = strsep(&rest, " ");
    sigemptyset(&none); /* this may be a handler, with its signal blocked */
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv("/proc/self/exe", argv);
    _exit(2);
}

static bool fails_without(uint64_t kinds)
{
    uint64_t old = without;
    without |= kinds;
    if (shrink_fails(try, NULL))
        return true;
    without = old;
    return false;
}

/* Halves of the kinds, then their halves: most failures need few of them. */
static void leave_out(unsigned from, unsigned n)
{
    uint64_t all = (UINT64_MAX >> (64 - n)) << from;
    if ((without & all) == all || fails_without(all) || n == 1)
        return;
    leave_out(from, n / 2);
    leave_out(from + n / 2, n - n / 2);
}

static void set_limit(void *arg, uint64_t n)
{
    ((struct seeds_limit *)arg)->most = n;
}

static void lower(struct seeds_limit *l)
{
    uint64_t old = l->most, used = MAX(MIN(l->used, old), l->least);
    if (!shrink_number(l->least, used, set_limit, try, l))
        l->most = old;
}

static void shrink(void)
{
    if (!shrink_fails(try, NULL)) {
        printf(shrink_is_over() ? "there was no time to make it smaller\n" : "it does not fail again: the run depends on more than its seed\n");
        return;
    }
    leave_out(0, sim->n_kinds);
    for (unsigned i = 0; i < sim->n_limits; i++)
        lower(&sim->limits[i]);
}

__attribute__((noreturn)) static void failed(void)
{
    AUTO_SB struct sb b;
    fflush(stdout);
    sb_init(&b, 0);
    if (is_running) { /* else it was not a seed: the same command fails again */
        if (may_shrink)
            shrink();
        replay_line(&b);
        printf("replay: %s --verbose\n", b.s);
    }
    printf("%llu passed, 1 failed\n", U(passed));
    fflush(stdout);
    _exit(1);
}

static void print_where(void)
{
    printf("seed %llu, %lld ms", U(seed_now), (long long)sim->now_ms());
    if (sim->where)
        sim->where();
    printf(": ");
}

void fail(const char *fmt, ...)
{
    va_list ap;
    print_where();
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    failed();
}

static void on_signal(int sig)
{
    signal(sig, SIG_DFL);
    fail("signal %d", sig);
}

static void on_report(void)
{
    may_shrink = false; /* the locks of the sanitizer are held */
    fail("see the sanitizer's report");
}

/* ---- what a run asks ---- */
void say(const char *fmt, ...)
{
    va_list ap;
    if (!is_verbose())
        return;
    va_start(ap, fmt);
    printf("%8lld ", (long long)sim->now_ms());
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

bool is_verbose(void)
{
    return verbose && !is_second;
}

bool has_kind(unsigned kind)
{
    return !(without >> kind & 1);
}

bool limit_take(struct seeds_limit *l)
{
    if (l->used >= l->most)
        return false;
    l->used++;
    return true;
}

uint64_t limit_cut(struct seeds_limit *l, uint64_t n)
{
    return l->used = MIN(n, l->most);
}

/* ---- options ---- */
static void usage(void)
{
    fprintf(stderr, "usage: %s [--seeds N] [--seed S] [--once] [--no-shrink] [--verbose]%s\n       [--without ", sim->program,
            sim->own_usage ? sim->own_usage : "");
    for (unsigned i = 0; i < sim->n_kinds; i++)
        fprintf(stderr, "%s%s", i ? "," : "", sim->kinds[i]);
    fprintf(stderr, "]\n");
    for (unsigned i = 0; i < sim->n_limits; i++)
        fprintf(stderr, "       [%s N] %s\n", sim->limits[i].option, sim->limits[i].what);
}

static bool parse_without(const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        unsigned i = 0;
        while (i < sim->n_kinds && (strlen(sim->kinds[i]) != len || strncmp(sim->kinds[i], list, len) != 0))
            i++;
        if (i == sim->n_kinds)
            return false;
        without |= UINT64_C(1) << i;
        list += len + (list[len] == ',');
    }
    return true;
}

static bool parse_flag(const char *name)
{
    if (str_equal(name, "--once"))
        once = true;
    else if (str_equal(name, "--verbose"))
        verbose = true;
    else if (str_equal(name, "--no-shrink"))
        may_shrink = false;
    else
        return false;
    return true;
}

static bool parse_value(const char *name, const char *value)
{
    uint64_t n = 0;
    if (str_equal(name, "--seeds"))
        return str_u64(value, 1, UINT32_MAX, &count);
    if (str_equal(name, "--seed"))
        return one = str_u64(value, 0, UINT64_MAX, &sim->first);
    if (str_equal(name, "--without"))
        return parse_without(value);
    if (sim->bug && str_equal(name, "--bug")) {
        bool ok = str_u64(value, 1, 99, &n);
        *sim->bug = (int)n;
        return ok;
    }
    for (unsigned i = 0; i < sim->n_limits; i++)
        if (str_equal(name, sim->limits[i].option))
            return str_u64(value, sim->limits[i].least, UINT64_MAX, &sim->limits[i].most);
    return sim->own && sim->own(name, value);
}

bool seeds_parse(struct seeds *s, int argc, char **argv)
{
    sim = s;
    s->first = 1;
    for (unsigned i = 0; i < s->n_limits; i++)
        s->limits[i].most = UINT64_MAX;
    for (int i = 1; i < argc; i++) {
        if (parse_flag(argv[i]))
            continue;
        if (i + 1 == argc || !parse_value(argv[i], argv[i + 1])) {
            usage();
            return false;
        }
        i++;
    }
    return true;
}

/* ---- the loop ---- */
static uint64_t run(bool second)
{
    is_second = second;
    for (unsigned i = 0; i < sim->n_limits; i++)
        sim->limits[i].used = 0;
    return sim->run(seed_now);
}

int seeds_run(void)
{
    uint64_t all = 0;
    is_running = true;
    if (!count)
        count = one ? 1 : sim->n;
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(on_report);
    else
        signal(SIGSEGV, on_signal);
    for (; passed < count && !(sim->is_over && sim->is_over()); passed++) {
        seed_now = sim->first + passed;
        uint64_t hash = run(false);
        if (!once && run(true) != hash)
            fail("two runs of one seed differ");
        if (sim->sum)
            sim->sum();
        all = (all ^ hash) * UINT64_C(0x9e3779b97f4a7c15);
    }
    if (sim->figures)
        sim->figures();
    printf("hash of all: %016llx\n%llu passed, 0 failed\n", U(all), U(passed));
    return 0;
}
