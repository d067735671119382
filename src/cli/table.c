/* Tables as the docker client lays them out (Go's tabwriter: cells at least 10 wide with 3 blanks between, the
 * last one bare), and the same rows as JSON objects with keys in alphabetical order, as `{{json .}}` gives. */
#include "cli.h"

enum { CELL_MIN = 10, CELL_GAP = 3 };

void table_init(struct table *t, const struct column *cols, unsigned n_cols)
{
    *t = (struct table){ .cols = cols, .n_cols = n_cols };
}

void table_done(struct table *t)
{
    strs_clear(&t->cells);
}

void table_add(struct table *t, const char *cell)
{
    strs_add(&t->cells, cell ? cell : "");
}

void table_addf(struct table *t, const char *fmt, ...)
{
    AUTO_SB struct sb b;
    va_list ap;
    sb_init(&b, 0);
    va_start(ap, fmt);
    sb_vprintf(&b, fmt, ap);
    va_end(ap);
    table_add(t, b.s);
}

/* Characters: every byte that does not continue one (all of width one). */
static unsigned width_of(const char *s)
{
    unsigned n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

/* A cell from a peer shall not move the cursor: control characters are shown as blanks. */
static void print_cell(FILE *f, const char *s, unsigned width)
{
    unsigned n = width_of(s);
    for (const char *p = s; *p; p++)
        fputc((unsigned char)*p < 32 || *p == 127 ? ' ' : *p, f);
    for (; n < width; n++)
        fputc(' ', f);
}

static const char *cell(const struct table *t, unsigned row, unsigned col)
{
    return t->cells.v[row * t->n_cols + col];
}

void table_print(const struct table *t, FILE *f)
{
    unsigned rows = t->cells.n / t->n_cols, last = 0;
    unsigned widths[32] = { 0 };
    ASSERT(t->n_cols <= ARRAY_N(widths));
    for (unsigned c = 0; c < t->n_cols; c++) {
        if (!t->cols[c].head)
            continue;
        last = c;
        widths[c] = MAX((unsigned)CELL_MIN, width_of(t->cols[c].head) + CELL_GAP);
        for (unsigned r = 0; r < rows; r++)
            widths[c] = MAX(widths[c], width_of(cell(t, r, c)) + CELL_GAP);
    }
    for (unsigned r = 0; r <= rows; r++) { /* row 0 is the head */
        for (unsigned c = 0; c < t->n_cols; c++)
            if (t->cols[c].head)
                print_cell(f, r ? cell(t, r - 1, c) : t->cols[c].head, c == last ? 0 : widths[c]);
        fputc('\n', f);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct column *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

void table_json(const struct table *t, FILE *f)
{
    const struct column *order[32];
    for (unsigned c = 0; c < t->n_cols; c++)
        order[c] = &t->cols[c];
    qsort(order, t->n_cols, sizeof order[0], by_key);
    for (unsigned r = 0; r < t->cells.n / t->n_cols; r++) {
        AUTO_SB struct sb b;
        sb_init(&b, 0);
        for (unsigned i = 0; i < t->n_cols; i++) {
            const char *s = cell(t, r, (unsigned)(order[i] - t->cols));
            sb_char(&b, i ? ',' : '{');
            sb_json_str(&b, order[i]->key, strlen(order[i]->key));
            sb_char(&b, ':');
            if (order[i]->raw)
                sb_str(&b, s);
            else
                sb_json_str(&b, s, strlen(s));
        }
        fprintf(f, "%s}\n", b.s);
    }
}

int table_show(struct cli *c, const struct table *t, unsigned quiet_col, struct err *e)
{
    enum format format;
    int rc = format_of(c, &format, e);
    if (rc < 0)
        return rc;
    if (format == FORMAT_JSON)
        table_json(t, c->out);
    else if (format == FORMAT_NONE && cli_has(c, "quiet") && cli_on(c, "quiet"))
        for (unsigned r = 0; r < t->cells.n / t->n_cols; r++)
            fprintf(c->out, "%s\n", cell(t, r, quiet_col));
    else
        table_print(t, c->out);
    return 0;
}
