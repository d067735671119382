/* The log: one line an entry on stderr, one write each, at most 20 a second from one place. */
#include <shoal/base/file.h>
#include <shoal/base/log.h>
#include <shoal/base/mem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PER_SECOND = 20 };
static const char *const names[] = { "error", "warn", "info", "debug" };
static enum log_level threshold = LOG_INFO;

void log_set_level(enum log_level level)
{
    threshold = level;
}

int log_level_from_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_N(names); i++)
        if (!strcmp(name, names[i]))
            return (int)i;
    return -1;
}

void log_write(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
{
    if (level > threshold)
        return;
    long second = (long)(clock_mono_ns() / SEC_NS);
    unsigned dropped = 0;
    if (second != site->second) {
        site->second = second;
        site->n = 0;
        dropped = site->dropped;
        site->dropped = 0;
    }
    if (site->n++ >= PER_SECOND) {
        site->dropped++;
        return;
    }
    char line[2048], when[40];
    va_list ap;
    int64_t now = clock_real_ns();
    time_format(when, now - now % SEC_NS); /* "...SSZ"; always three digits behind it, so that lines sort */
    int n = snprintf(line, sizeof line - 1, "%.19s.%03dZ %s %s ", when, (int)(now % SEC_NS / MS_NS), names[level], module);
    va_start(ap, fmt);
    int k = vsnprintf(line + n, sizeof line - 1 - (size_t)n, fmt, ap);
    va_end(ap);
    size_t len = MIN((size_t)(n + MAX(k, 0)), sizeof line - 2);
    if (dropped)
        len += (size_t)MAX(snprintf(line + len, sizeof line - 1 - len, " (and %u more like it)", dropped), 0);
    len = MIN(len, sizeof line - 2);
    for (size_t i = 0; i < len; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0)
        return; /* nowhere left to say it */
}
