/* What simulations do with seeds: options, the loop, each seed twice, and one that fails made smaller. Its last lines are
 * the command that replays it and how many passed before it.
 *
 * All of them take --seeds N, --seed S, --once (each seed once), --verbose, --no-shrink, --without KIND,..., the option of
 * each limit, and --bug K where bugs are planted. */
#ifndef SIM_SEEDS_H
#define SIM_SEEDS_H

#include <stdbool.h>
#include <stdint.h>

/* KINDS(X) is X(name) X(name)... of what happens at random; so written: enum kind { KINDS(SEEDS_KIND) } and
 * kinds[] = { KINDS(SEEDS_KIND_NAME) }. */
#define SEEDS_KIND(name) K_##name,
#define SEEDS_KIND_NAME(name) #name,

struct seeds_limit { /* how much of something a run has; a failing run is tried with less */
    const char *option, *what; /* what: for people */
    uint64_t least;            /* with which the simulation still makes sense */
    uint64_t most;             /* that is asked for */
    uint64_t used;             /* by the run so far */
};

struct seeds {
    const char *program;
    const char *const *kinds; /* of what happens at random; each may be left out */
    struct seeds_limit *limits;
    unsigned n_kinds, n_limits;
    uint64_t first, n;            /* seed, and how many are run when nobody says how many */
    uint64_t (*run)(uint64_t seed); /* gives the hash of all that happened */
    int64_t (*now_ms)(void);
    void (*where)(void); /* NULL, or prints more of where the run is */
    void (*sum)(void);   /* NULL, or counts the figures of a seed that passed */
    void (*figures)(void); /* NULL, or prints the sums */
    bool (*is_over)(void); /* NULL, or ends the loop before n seeds were run */
    int *bug;            /* NULL: none is planted */
    bool (*own)(const char *name, const char *value); /* NULL, or takes an option of this program alone */
    const char *own_usage;
};

/* False: wrong options, and the usage was printed. s must outlive the program. */
bool seeds_parse(struct seeds *s, int argc, char **argv);
/* Gives the program's exit code; does not return from a seed that fails. */
int seeds_run(void);

/* Ends the seed that runs, and the program. */
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define CHECK(cond, ...) ((cond) ? (void)0 : fail(__VA_ARGS__))
/* With --verbose, in the first run of a seed. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool is_verbose(void);

/* Is this kind not left out? */
bool has_kind(unsigned kind);
/* May one more happen? It is counted. */
bool limit_take(struct seeds_limit *l);
/* n, or what is asked for instead. */
uint64_t limit_cut(struct seeds_limit *l, uint64_t n);

#endif
