/* Sizes, ages and durations as people read them; same words as the docker client (its go-units), so that
 * output can be compared. Pure: the present time is given. */
#include "cli.h"
#include <ctype.h>
#include <shoal/base/file.h>
#include <shoal/stack.h>

void units_bytes(char out[32], int64_t bytes, bool binary)
{
    static const char *const decimal[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    static const char *const powers[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double base = binary ? 1024.0 : 1000.0, v = (double)bytes;
    unsigned i = 0;
    while (v >= base && i + 1 < ARRAY_N(decimal)) {
        v /= base;
        i++;
    }
    snprintf(out, 32, binary ? "%.4g%s" : "%.3g%s", v, (binary ? powers : decimal)[i]);
}

void units_ago(char out[48], int64_t ns)
{
    int64_t s = ns / SEC_NS, m = s / 60, h = (m + 30) / 60;
    if (s < 1)
        snprintf(out, 48, "Less than a second");
    else if (s == 1)
        snprintf(out, 48, "1 second");
    else if (s < 60)
        snprintf(out, 48, "%d seconds", (int)s);
    else if (m == 1)
        snprintf(out, 48, "About a minute");
    else if (m < 60)
        snprintf(out, 48, "%d minutes", (int)m);
    else if (h == 1)
        snprintf(out, 48, "About an hour");
    else if (h < 48)
        snprintf(out, 48, "%d hours", (int)h);
    else if (h < 24 * 7 * 2)
        snprintf(out, 48, "%d days", (int)(h / 24));
    else if (h < 24 * 30 * 2)
        snprintf(out, 48, "%d weeks", (int)(h / 24 / 7));
    else if (h < 24 * 365 * 2)
        snprintf(out, 48, "%d months", (int)(h / 24 / 30));
    else
        snprintf(out, 48, "%d years", (int)(h / 24 / 365));
}

void units_ago_since(char out[64], int64_t now_ns, const char *rfc3339)
{
    int64_t then;
    char age[48];
    out[0] = 0;
    if (!rfc3339 || time_parse(rfc3339, &then) < 0 || !then)
        return;
    units_ago(age, MAX(now_ns - then, 0));
    snprintf(out, 64, "%s ago", age);
}

/* The fraction of a second as Go prints it: no trailing zeros. */
static void seconds(char *out, size_t size, int64_t ns, int64_t unit, const char *name)
{
    char digits[16];
    int64_t rest = ns % unit;
    int n = 0;
    for (int64_t u = unit / 10; u && rest; rest %= u, u /= 10)
        digits[n++] = (char)('0' + rest / u);
    digits[n] = 0;
    snprintf(out, size, "%lld%s%s%s", (long long)(ns / unit), n ? "." : "", digits, name);
}

void units_duration(char out[48], int64_t ns)
{
    const char *sign = ns < 0 ? "-" : "";
    uint64_t abs = ns < 0 ? (uint64_t)-(ns + 1) + 1 : (uint64_t)ns;
    int64_t v = (int64_t)MIN(abs, (uint64_t)INT64_MAX);
    char s[32];
    if (!v) {
        snprintf(out, 48, "0s");
    } else if (v < SEC_NS) {
        if (v < 1000)
            seconds(s, sizeof s, v, 1, "ns");
        else if (v < MS_NS)
            seconds(s, sizeof s, v, 1000, "us");
        else
            seconds(s, sizeof s, v, MS_NS, "ms");
        snprintf(out, 48, "%s%s", sign, s);
    } else {
        int64_t h = v / (3600 * SEC_NS), m = v / (60 * SEC_NS) % 60;
        seconds(s, sizeof s, v % (60 * SEC_NS), SEC_NS, "s");
        if (h)
            snprintf(out, 48, "%s%lldh%lldm%s", sign, (long long)h, (long long)m, s);
        else if (m)
            snprintf(out, 48, "%s%lldm%s", sign, (long long)m, s);
        else
            snprintf(out, 48, "%s%s", sign, s);
    }
}

static bool is_unix_time(const char *s)
{
    unsigned digits = 0, dots = 0;
    for (; *s; s++)
        if (isdigit((unsigned char)*s))
            digits++;
        else if (*s == '.' && digits)
            dots++;
        else
            return false;
    return digits && digits <= 19 && dots <= 1;
}

int units_time_flag(const char *s, int64_t now_ns, char out[48])
{
    int64_t ns;
    if (is_unix_time(s)) {
        snprintf(out, 48, "%s", s);
        return 0;
    }
    if (stack_duration_ns(s, &ns) == 0) {
        ns = now_ns - ns;
    } else if (time_parse(s, &ns) < 0) {
        char day[48];
        snprintf(day, sizeof day, "%.20sT00:00:00Z", s); /* a date alone */
        char minute[48];
        snprintf(minute, sizeof minute, "%.30sZ", s); /* without a zone */
        if (time_parse(minute, &ns) < 0 && time_parse(day, &ns) < 0)
            return -E_INVALID;
    }
    snprintf(out, 48, "%lld.%09lld", (long long)(ns / SEC_NS), (long long)(ns % SEC_NS));
    return 0;
}

const char *capital(const char *s, char out[32])
{
    snprintf(out, 32, "%s", s ? s : "");
    out[0] = (char)toupper((unsigned char)out[0]);
    return out;
}

const char *short_id(const char *id, char out[16])
{
    if (str_starts(id, "sha256:"))
        id += 7;
    snprintf(out, 16, "%.12s", id);
    return out;
}
