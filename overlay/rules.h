/* One table of nftables in parts: a base (sets, maps, base chains), regular chains, and elements of the base's sets and
 * maps. What changed between two versions is told in commands for that alone, so that one service among thousands costs
 * what it changes; and the whole as text, so that it can be read and tested. Pure. */
#ifndef OVERLAY_RULES_H
#define OVERLAY_RULES_H

#include <shoal/base/map.h>
#include <shoal/base/sb.h>

#define RULES_TABLE_NAME "shoal"
#define RULES_TABLE "ip " RULES_TABLE_NAME

struct rules {
    struct sb base;
    struct map parts; /* "CHAIN" -> its rules, a line each; "SET KEY" -> what the key maps to, or "" */
};

struct rules *rules_new(void);
void rules_free(struct rules *r); /* takes NULL */
/* lines: each ends with a newline. Put twice, the last counts. */
void rules_chain(struct rules *r, const char *name, const char *lines);
void rules_element(struct rules *r, const char *set, const char *key, const char *value /* NULL: of a set */);
void rules_goto(struct rules *r, const char *map, const char *key, const char *chain);
/* Commands that replace the table by r, whatever it held. */
void rules_whole(const struct rules *r, struct sb *out);
/* Commands that turn a table that holds `before` into r; none when they are equal. False: the bases differ. */
bool rules_change(const struct rules *before, const struct rules *r, struct sb *out);

#endif
