/* Reads histories from files (or "-") and judges them: exactly, key by key, and by the places in the log where the
 * server named them. Exit 0: linearizable, 1: not, with what shows it, 2: bad input, 3: too hard for the exact search.
 *   check [--index-only] [--states N] FILE... */
#include "linear.h"

#include <shoal/base/file.h>
#include <shoal/base/mem.h>
#include <stdio.h>

enum { HISTORY_MAX_BYTES = 1 << 30 };

static int judge(const struct linear_history *h, const struct linear_limits *limits, bool index_only)
{
    AUTO_SB struct sb why;
    sb_init(&why, 0);
    uint64_t counts[4] = { 0 }, placed = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        counts[h->ops[i].outcome]++;
        placed += h->ops[i].index != 0;
    }
    printf("%u operations on %u keys: %llu done, %llu refused, %llu failed, %llu unknown; %llu name their place\n", h->n,
           h->n_keys, (unsigned long long)counts[LINEAR_OK], (unsigned long long)counts[LINEAR_REFUSED],
           (unsigned long long)counts[LINEAR_FAILED], (unsigned long long)counts[LINEAR_UNKNOWN], (unsigned long long)placed);
    if (linear_check_index(h, &why) != LINEAR_YES) {
        printf("NOT linearizable by the places in the log: %s", why.s);
        return 1;
    }
    enum linear_verdict v = index_only ? LINEAR_YES : linear_check(h, limits, &why);
    if (v == LINEAR_NO)
        printf("NOT linearizable: %s", why.s);
    else if (v == LINEAR_TOO_HARD)
        printf("undecided: %s", why.s);
    else
        printf("linearizable\n");
    return v == LINEAR_NO ? 1 : v == LINEAR_TOO_HARD ? 3 : 0;
}

int main(int argc, char **argv)
{
    struct linear_history h;
    struct linear_limits limits = { 0 };
    struct err e = { 0 };
    bool index_only = false;
    int files = 0, r = 0;
    linear_history_init(&h);
    for (int i = 1; i < argc && r == 0; i++) {
        char *text = NULL;
        size_t size;
        if (!strcmp(argv[i], "--index-only")) {
            index_only = true;
            continue;
        }
        if (!strcmp(argv[i], "--states") && i + 1 < argc) {
            if (!str_u64(argv[++i], 1, UINT64_C(1) << 32, &limits.states))
                r = err_set(&e, E_INVALID, "--states: a number from 1 to 4294967296 is needed");
            continue;
        }
        r = file_read(strcmp(argv[i], "-") ? argv[i] : "/dev/stdin", HISTORY_MAX_BYTES, &text, &size, &e);
        if (r == 0)
            r = linear_parse(&h, text, argv[i], &e);
        free(text);
        files++;
    }
    if (r < 0 || !files) {
        fprintf(stderr, "check: %s\n", r < 0 ? e.text : "usage: check [--index-only] [--states N] FILE...");
        linear_history_done(&h);
        return 2;
    }
    r = judge(&h, &limits, index_only);
    linear_history_done(&h);
    return r;
}
