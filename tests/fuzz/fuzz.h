/* What every fuzzer gives: the entry point that libFuzzer calls, and valid inputs to begin from. Here replay.c calls
 * both, a bounded number of rounds, so that `make check` runs every fuzzer with any compiler; a build of clang
 * configured with --enable-fuzzing gives libFuzzer's own main instead. */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <shoal/base/err.h>
#include <shoal/base/mem.h>
#include <shoal/base/rng.h>
#include <shoal/base/sb.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t size);

/* Appends a well-formed input to `b` (which is empty), and asserts what must hold of it. */
void fuzz_sample(struct rng *g, struct sb *b);

/* Rounds in `make check`: what takes a few seconds with sanitizers. */
extern const unsigned fuzz_rounds;

/* Words of the input's language, to mix in; ends with NULL. */
extern const char *const fuzz_words[];

#endif
