/* GET /containers/x/top: the processes of a container as ps would list them, read from /proc by the numbers that its
 * control group names. No ps is run: only -e, -f, -ef, aux and -o/-eo COLUMN,... are understood, the rest is refused. */
#include "api_internal.h"
#include <shoal/base/file.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COLUMNS_MAX = 32, TICKS = 100, DAY_S = 86400 };

struct process {
    int64_t pid, ppid, uid, gid, threads, nice, priority, vsize, rss_kb, utime, stime, start_s, tty;
    char state, comm[64];
    char *command;
};
struct listing { const char *users; int64_t boot_s, now_s, memory_kb; };

static void user_name(const struct listing *l, int64_t uid, char out[64])
{
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)uid);
    for (const char *p = l->users; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
        const char *a = strchr(p, ':'), *b = a ? strchr(a + 1, ':') : NULL;
        size_t n = strlen(number);
        if (b && strncmp(b + 1, number, n) == 0 && b[1 + n] == ':') {
            snprintf(out, 64, "%.*s", (int)MIN(a - p, 63), p);
            return;
        }
    }
    snprintf(out, 64, "%s", number);
}

static char *proc_text(int64_t pid, const char *name, size_t *n)
{
    char path[64], *text = NULL;
    snprintf(path, sizeof path, "/proc/%lld/%s", (long long)pid, name);
    return file_read(path, 128 << 10, &text, n, NULL) < 0 ? NULL : text;
}

static bool look(struct process *p, int64_t pid, const struct listing *l)
{
    size_t n = 0, words = 0;
    char path[64];
    struct stat st;
    long long ppid, tty, utime, stime, priority, nice, threads, start, vsize, rss;
    AUTO_FREE char *stat_text = proc_text(pid, "stat", &n);
    snprintf(path, sizeof path, "/proc/%lld", (long long)pid);
    char *open = stat_text ? strchr(stat_text, '(') : NULL, *close = stat_text ? strrchr(stat_text, ')') : NULL;
    if (!open || !close || stat(path, &st) < 0 ||
        sscanf(close + 1, " %c %lld %*d %*d %lld %*d %*u %*u %*u %*u %*u %lld %lld %*d %*d %lld %lld %lld %*d %lld %lld %lld", &p->state,
               &ppid, &tty, &utime, &stime, &priority, &nice, &threads, &start, &vsize, &rss) != 11)
        return false;
    snprintf(p->comm, sizeof p->comm, "%.*s", (int)MIN(close - open - 1, 63), open + 1);
    char *command = proc_text(pid, "cmdline", &words);
    for (size_t i = 0; command && i + 1 < words; i++)
        if (command[i] == '\0' || command[i] == '\n')
            command[i] = ' ';
    if (!command || !*command) {
        free(command);
        command = xasprintf("[%s]", p->comm);
    }
    p->pid = pid;
    p->ppid = ppid;
    p->uid = st.st_uid;
    p->gid = st.st_gid;
    p->tty = tty;
    p->utime = utime;
    p->stime = stime;
    p->priority = priority;
    p->nice = nice;
    p->threads = threads;
    p->start_s = l->boot_s + start / TICKS;
    p->vsize = vsize;
    p->rss_kb = rss * (sysconf(_SC_PAGESIZE) / 1024);
    p->command = command;
    return true;
}

/* ---- columns ---- */
typedef void column_fn(struct sb *b, const struct process *p, const struct listing *l);
static void col_user(struct sb *b, const struct process *p, const struct listing *l)
{
    char name[64];
    user_name(l, p->uid, name);
    sb_str(b, name);
}
static void col_cpu_seconds(struct sb *b, const struct process *p, const struct listing *l)
{
    int64_t s = (p->utime + p->stime) / TICKS;
    (void)l;
    sb_printf(b, "%02lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60), (long long)(s % 60));
}
static void col_short_time(struct sb *b, const struct process *p, const struct listing *l)
{
    int64_t s = (p->utime + p->stime) / TICKS;
    (void)l;
    sb_printf(b, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
}
static void col_elapsed(struct sb *b, const struct process *p, const struct listing *l)
{
    int64_t s = MAX(l->now_s - p->start_s, 0);
    if (s >= DAY_S)
        sb_printf(b, "%lld-", (long long)(s / DAY_S));
    if (s >= 3600)
        sb_printf(b, "%02lld:", (long long)(s / 3600 % 24));
    sb_printf(b, "%02lld:%02lld", (long long)(s / 60 % 60), (long long)(s % 60));
}
static void col_start(struct sb *b, const struct process *p, const struct listing *l)
{
    char text[16];
    struct tm tm;
    time_t t = (time_t)p->start_s;
    localtime_r(&t, &tm);
    strftime(text, sizeof text, l->now_s - p->start_s < DAY_S ? "%H:%M" : "%b%d", &tm);
    sb_str(b, text);
}
static void col_tty(struct sb *b, const struct process *p, const struct listing *l)
{
    int64_t major = p->tty >> 8 & 0xfff, minor = (p->tty & 0xff) | (p->tty >> 12 & 0xfff00);
    (void)l;
    if (!p->tty)
        sb_char(b, '?');
    else if (major >= 136 && major <= 143)
        sb_printf(b, "pts/%lld", (long long)((major - 136) * 256 + minor));
    else
        sb_printf(b, "tty%lld", (long long)minor);
}
static double cpu_share(const struct process *p, const struct listing *l)
{
    return 100.0 * (double)(p->utime + p->stime) / TICKS / (double)MAX(l->now_s - p->start_s, 1);
}
static void col_cpu(struct sb *b, const struct process *p, const struct listing *l)
{
    sb_printf(b, "%.1f", cpu_share(p, l));
}
static void col_cpu_whole(struct sb *b, const struct process *p, const struct listing *l)
{
    sb_printf(b, "%.0f", cpu_share(p, l));
}
static void col_memory(struct sb *b, const struct process *p, const struct listing *l)
{
    sb_printf(b, "%.1f", 100.0 * (double)p->rss_kb / (double)MAX(l->memory_kb, 1));
}
static void col_command(struct sb *b, const struct process *p, const struct listing *l)
{
    (void)l;
    sb_str(b, p->command);
}
static void col_comm(struct sb *b, const struct process *p, const struct listing *l)
{
    (void)l;
    sb_str(b, p->comm);
}
static void col_state(struct sb *b, const struct process *p, const struct listing *l)
{
    (void)l;
    sb_char(b, p->state);
}

#define NUMBER(NAME, VALUE)                                                                     \
    static void col_##NAME(struct sb *b, const struct process *p, const struct listing *l)     \
    {                                                                                           \
        (void)l;                                                                                \
        sb_printf(b, "%lld", (long long)(VALUE));                                              \
    }
NUMBER(pid, p->pid)
NUMBER(ppid, p->ppid)
NUMBER(uid, p->uid)
NUMBER(gid, p->gid)
NUMBER(threads, p->threads)
NUMBER(nice, p->nice)
NUMBER(priority, p->priority)
NUMBER(vsz, p->vsize / 1024)
NUMBER(rss, p->rss_kb)

static const struct column { const char *name, *title; column_fn *fn; } columns[] = {
    { "pid", "PID", col_pid }, { "ppid", "PPID", col_ppid }, { "user", "USER", col_user }, { "euser", "EUSER", col_user },
    { "uid", "UID", col_uid }, { "gid", "GID", col_gid }, { "comm", "COMMAND", col_comm }, { "args", "COMMAND", col_command },
    { "cmd", "CMD", col_command }, { "command", "COMMAND", col_command }, { "rss", "RSS", col_rss }, { "vsz", "VSZ", col_vsz },
    { "pcpu", "%CPU", col_cpu }, { "%cpu", "%CPU", col_cpu }, { "pmem", "%MEM", col_memory }, { "%mem", "%MEM", col_memory },
    { "stat", "STAT", col_state }, { "s", "S", col_state }, { "state", "S", col_state }, { "time", "TIME", col_cpu_seconds },
    { "etime", "ELAPSED", col_elapsed }, { "nlwp", "NLWP", col_threads }, { "tty", "TT", col_tty }, { "ni", "NI", col_nice },
    { "pri", "PRI", col_priority }, { "stime", "STIME", col_start }, { "start", "STARTED", col_start },
};
static const struct column full[] = {
    { "", "UID", col_user }, { "", "PID", col_pid }, { "", "PPID", col_ppid }, { "", "C", col_cpu_whole }, { "", "STIME", col_start },
    { "", "TTY", col_tty }, { "", "TIME", col_cpu_seconds }, { "", "CMD", col_command },
};
static const struct column plain[] = { { "", "PID", col_pid }, { "", "TTY", col_tty }, { "", "TIME", col_cpu_seconds }, { "", "CMD", col_comm } };
static const struct column aux[] = {
    { "", "USER", col_user }, { "", "PID", col_pid }, { "", "%CPU", col_cpu }, { "", "%MEM", col_memory }, { "", "VSZ", col_vsz },
    { "", "RSS", col_rss }, { "", "TTY", col_tty }, { "", "STAT", col_state }, { "", "START", col_start }, { "", "TIME", col_short_time },
    { "", "COMMAND", col_command },
};

struct chosen { const struct column *v[COLUMNS_MAX]; unsigned n; };

static void choose_all(struct chosen *c, const struct column *v, unsigned n)
{
    c->n = n;
    for (unsigned i = 0; i < n; i++)
        c->v[i] = &v[i];
}

static int choose_names(struct chosen *c, const char *names, struct err *e)
{
    while (*names) {
        size_t n = strcspn(names, ", ");
        unsigned k = 0;
        while (k < ARRAY_N(columns) && !(strlen(columns[k].name) == n && strncmp(columns[k].name, names, n) == 0))
            k++;
        if (n && k == ARRAY_N(columns))
            return err_set(e, E_INVALID, "ps_args: unknown column \"%.*s\"", (int)n, names);
        if (n && c->n == COLUMNS_MAX)
            return err_set(e, E_INVALID, "ps_args: too many columns");
        if (n)
            c->v[c->n++] = &columns[k];
        names += n + (names[n] != '\0');
    }
    return c->n ? 0 : err_set(e, E_INVALID, "ps_args: -o needs columns, as in -o pid,args");
}

static int choose(struct chosen *c, const char *args, struct err *e)
{
    while (*args == ' ')
        args++;
    bool dash = *args == '-';
    const char *word = args + dash;
    size_t n = strspn(word, "efaux");
    if (!*args || (dash && str_equal(word, "ef")) || (dash && str_equal(word, "f")))
        choose_all(c, full, ARRAY_N(full));
    else if (dash && str_equal(word, "e"))
        choose_all(c, plain, ARRAY_N(plain));
    else if (str_equal(word, "aux") || str_equal(word, "u") || str_equal(word, "au") || str_equal(word, "ux"))
        choose_all(c, aux, ARRAY_N(aux));
    else if (word[n] == 'o')
        return choose_names(c, word + n + 1, e);
    else
        return err_set(e, E_INVALID, "ps_args: \"%s\" is not built; use -ef, aux or -o with columns (pid, ppid, user, args, comm, rss, "
                       "vsz, pcpu, pmem, stat, time, etime, ...)", args);
    return 0;
}

void container_top(struct call *c)
{
    struct chosen chosen = { 0 };
    struct machine_facts facts;
    struct err e;
    size_t n;
    const struct container *x = container_of_call(c);
    if (!x)
        return;
    if (!container_is_up(x)) {
        reply_error(c, E_CONFLICT, "container %s is not running", x->spec.id);
        return;
    }
    if (choose(&chosen, query(c, "ps_args") ? query(c, "ps_args") : "", &e) < 0) {
        reply_err(c, &e);
        return;
    }
    AUTO_FREE char *users = NULL;
    if (file_read("/etc/passwd", 1 << 20, &users, &n, NULL) < 0)
        users = NULL;
    machine_facts(&facts);
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    struct listing l = { users, clock_real_ns() / SEC_NS - up.tv_sec, clock_real_ns() / SEC_NS, facts.memory_bytes / 1024 };
    struct val_doc *d = val_doc_new();
    struct val *v = val_map(d), *titles = val_list(d), *rows = val_list(d);
    for (unsigned i = 0; i < chosen.n; i++)
        val_push(d, titles, val_str(d, chosen.v[i]->title));
    size_t n_pids;
    AUTO_FREE int64_t *pids = runtime_pids(c->api->b.runtime, x->spec.id, &n_pids);
    for (size_t i = 0; i < n_pids; i++) {
        struct process p = { 0 };
        if (!look(&p, pids[i], &l)) /* it has just ended */
            continue;
        struct val *row = val_list(d);
        for (unsigned k = 0; k < chosen.n; k++) {
            AUTO_SB struct sb cell;
            sb_init(&cell, 256 << 10);
            chosen.v[k]->fn(&cell, &p, &l);
            val_push(d, row, val_str(d, cell.s));
        }
        val_push(d, rows, row);
        free(p.command);
    }
    container_event(c->api, x, "top", NULL, NULL);
    val_set_root(d, v);
    val_set(d, v, "Titles", titles);
    val_set(d, v, "Processes", rows);
    reply_val(c, 200, d);
}
