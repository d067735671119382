/* A failing run made smaller, for any simulation: the run is repeated in child processes with less and less, for a
 * minute of processor time in all; how far it is a terminal is told. */
#ifndef SIM_SHRINK_H
#define SIM_SHRINK_H

#include <stdbool.h>
#include <stdint.h>

/* Does the run still fail with these limits? Runs TRY in a child whose output is thrown away. TRY ends the process with 1
 * (or by a signal) when the run fails, or returns. False too when the time is over. */
bool shrink_fails(void (*try)(void *arg), void *arg);
bool shrink_is_over(void);
/* Smallest n in [lo, hi] found by halving for which it fails. set puts n in place. False: it does not fail with hi; that
 * is in place then. */
bool shrink_number(uint64_t lo, uint64_t hi, void (*set)(void *arg, uint64_t n), void (*try)(void *arg), void *arg);

#endif
