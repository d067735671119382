/* Placement constraints of a service against one node; used by orchestrator and scheduler. */
#ifndef SHOAL_MODEL_CONSTRAINT_H
#define SHOAL_MODEL_CONSTRAINT_H

#include <shoal/model/node.h>

/* True when all constraints hold (placement may be NULL); else the first broken one is named in why. */
bool constraints_match(const struct placement *placement, const struct node *node, char *why, size_t why_size);
/* amd64 -> x86_64, arm64 -> aarch64, NULL -> "". */
const char *arch_normal(const char *arch);

#endif
