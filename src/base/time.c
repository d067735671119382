/* RFC 3339 times as the Engine API writes them. Pure. */
#include <shoal/base/file.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void time_format(char *out, int64_t real_ns)
{
    if (real_ns == 0) {
        snprintf(out, 40, "0001-01-01T00:00:00Z");
        return;
    }
    int64_t s = real_ns / SEC_NS, ns = real_ns % SEC_NS;
    if (ns < 0) {
        ns += SEC_NS;
        s--;
    }
    time_t t = (time_t)s;
    struct tm tm;
    gmtime_r(&t, &tm);
    int n = (int)strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    if (ns) {
        n += snprintf(out + n, (size_t)(40 - n), ".%09d", (int)ns);
        while (out[n - 1] == '0')
            n--;
    }
    snprintf(out + n, (size_t)(40 - n), "Z");
}

static int digits(const char **p, int n)
{
    int v = 0;
    while (n--) {
        if (**p < '0' || **p > '9')
            return -1;
        v = v * 10 + *(*p)++ - '0';
    }
    return v;
}

int time_parse(const char *s, int64_t *ret_real_ns)
{
    struct tm tm = { 0 };
    int64_t ns = 0, zone = 0;
    int year = digits(&s, 4), month, day, hour, minute, second;
    if (year < 0 || *s++ != '-' || (month = digits(&s, 2)) < 1 || month > 12 || *s++ != '-' ||
        (day = digits(&s, 2)) < 1 || day > 31 || (*s != 'T' && *s != 't' && *s != ' '))
        return -1;
    s++;
    if ((hour = digits(&s, 2)) < 0 || hour > 23 || *s++ != ':' || (minute = digits(&s, 2)) < 0 ||
        minute > 59 || *s++ != ':' || (second = digits(&s, 2)) < 0 || second > 60)
        return -1;
    if (*s == '.') {
        int64_t unit = SEC_NS / 10;
        if (*++s < '0' || *s > '9')
            return -1;
        for (; *s >= '0' && *s <= '9'; s++, unit /= 10)
            ns += (*s - '0') * unit;
    }
    if (*s == 'Z' || *s == 'z') {
        s++;
    } else if (*s == '+' || *s == '-') {
        int sign = *s++ == '-' ? -1 : 1, zh = digits(&s, 2), zm;
        if (zh < 0 || *s++ != ':' || (zm = digits(&s, 2)) < 0)
            return -1;
        zone = sign * (zh * 3600 + zm * 60);
    } else {
        return -1;
    }
    if (*s)
        return -1;
    if (year < 1678 || year > 2261) { /* beyond what nanoseconds in 64 bits hold: the zero time */
        *ret_real_ns = 0;
        return year == 1 ? 0 : -1;
    }
    tm = (struct tm){ .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour,
                      .tm_min = minute, .tm_sec = second };
    *ret_real_ns = ((int64_t)timegm(&tm) - zone) * SEC_NS + ns;
    return 0;
}
