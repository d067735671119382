/* Is a history of client operations linearizable? Keys are registers of unique values; a value of 0 is "absent".
 * linear.c searches each key on its own (Wing and Gong; Lowe, "Testing for linearizability", 2017): exact, for some
 * hundreds of operations a key. linear_index.c takes the place in the log that the server names with each reply and
 * checks the whole history, all keys together, in n log n. history.c reads and writes text. */
#ifndef LINEAR_H
#define LINEAR_H

#include <shoal/base/err.h>
#include <shoal/base/map.h>
#include <shoal/base/sb.h>

enum linear_kind { LINEAR_READ, LINEAR_WRITE, LINEAR_CAS };
/* REFUSED: done, without effect, because the expectation of a CAS did not hold at that moment. FAILED: certainly never
 * done. UNKNOWN: done at some time after its start, or never. */
enum linear_outcome { LINEAR_OK, LINEAR_REFUSED, LINEAR_FAILED, LINEAR_UNKNOWN };
#define LINEAR_NEVER INT64_MAX

struct linear_op {
    enum linear_kind kind;
    enum linear_outcome outcome;
    uint32_t client, key;     /* key: number of its name in the history */
    int64_t start, end;       /* microseconds; end of an UNKNOWN one: LINEAR_NEVER */
    uint32_t expected, value; /* numbers of values; read: value is what it returned */
    uint64_t index;           /* place in the log that the server named, 0: none */
    uint32_t line;            /* of the file, or number in the history */
};

struct linear_history {
    struct linear_op *ops;
    uint32_t n, cap;
    char **keys, **values; /* by number; values[0] is "-" */
    uint32_t n_keys, cap_keys, n_values, cap_values;
    struct map key_numbers, value_numbers;
};
void linear_history_init(struct linear_history *h);
void linear_history_done(struct linear_history *h);
uint32_t linear_key(struct linear_history *h, const char *name);
uint32_t linear_value(struct linear_history *h, const char *text); /* "-": 0 */
void linear_add(struct linear_history *h, const struct linear_op *op);
/* One operation a line; '#' begins a comment:
 *   CLIENT START END|- read KEY VALUE OUTCOME [INDEX]
 *   CLIENT START END|- write KEY VALUE OUTCOME [INDEX]
 *   CLIENT START END|- cas KEY EXPECTED VALUE OUTCOME [INDEX]
 * OUTCOME is ok, refused, failed or unknown; a failed or unknown read names "-". -E_INVALID names the line. */
int linear_parse(struct linear_history *h, const char *text, const char *name, struct err *e) must_check;
void linear_print(const struct linear_history *h, const struct linear_op *op, struct sb *out);

enum linear_verdict { LINEAR_YES, LINEAR_NO, LINEAR_TOO_HARD };
struct linear_limits {
    uint64_t states; /* remembered for one key; 0: 2,000,000 */
};
/* LINEAR_NO: why gets the shortest history found that shows it, with what was tried. TOO_HARD: why names the key. */
enum linear_verdict linear_check(const struct linear_history *h, const struct linear_limits *limits, struct sb *why);
/* Only operations with an index take part, and unknown writes whose value was seen. Reads may claim any place at or
 * after the last write of their key; real time must agree with the places, and each value with what the log held. */
enum linear_verdict linear_check_index(const struct linear_history *h, struct sb *why);

#endif
