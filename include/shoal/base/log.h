/* Log of the shells (cores and libraries do not log, they return). One line an entry on stderr:
 * "2026-11-23T15:58:03.614Z info raft elected term=4 votes=2". At most 20 lines a second of one
 * call site; the surplus is counted and said. Never pass secrets. */
#ifndef SHOAL_BASE_LOG_H
#define SHOAL_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
#define LOG_MODULE(name) static const char log_module_[] __attribute__((unused)) = name

void log_set_level(enum log_level level);        /* default INFO */
int log_level_from_name(const char *name);       /* -1: unknown */
struct log_site { long second; unsigned n, dropped; };
void log_write(enum log_level level, const char *module, struct log_site *site, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define log_at_(level, ...)                                     \
    do {                                                        \
        static struct log_site site_;                           \
        log_write(level, log_module_, &site_, __VA_ARGS__);     \
    } while (0)
#define log_error(...) log_at_(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_at_(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_at_(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at_(LOG_DEBUG, __VA_ARGS__)

#endif
