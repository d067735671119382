/* Noise XX: both ends agree, tampering is found, keys and payloads arrive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <shoal/base/crypto.h>
#include <shoal/base/mem.h>
#include <shoal/noise.h>

static void keys(uint8_t secret[32], uint8_t public_key[32])
{
    crypto_init();
    crypto_dh_keypair(public_key, secret);
}

/* Runs the handshake; flip >= 0: that byte of that message is changed on the way. Returns the failing message or 3. */
static int run(struct noise_xx *a, struct noise_xx *b, int flip_message, size_t flip_byte)
{
    static const char *const payloads[] = { "", "responder's certificate", "initiator's certificate" };
    for (int i = 0; i < 3; i++) {
        struct noise_xx *from = i == 1 ? b : a, *to = i == 1 ? a : b;
        struct sb m, got;
        struct err e;
        sb_init(&m, 0);
        sb_init(&got, 0);
        assert_true(noise_xx_my_turn(from));
        assert_false(noise_xx_my_turn(to));
        noise_xx_write(from, payloads[i], strlen(payloads[i]), &m);
        if (i == flip_message)
            m.s[flip_byte % m.len] ^= 1;
        int r = noise_xx_read(to, m.s, m.len, &got, &e);
        bool same = r == 0 && !strcmp(got.s, payloads[i]);
        sb_done(&m);
        sb_done(&got);
        if (r < 0)
            return i;
        assert_true(same);
    }
    return 3;
}

static void both_ends_agree(void **state)
{
    (void)state;
    uint8_t sa[32], pa[32], sb_[32], pb[32], sealed[32], plain[32];
    struct noise_xx a, b;
    struct noise_cipher at, ar, bt, br;
    keys(sa, pa);
    keys(sb_, pb);
    noise_xx_init(&a, true, sa, "p", 1);
    noise_xx_init(&b, false, sb_, "p", 1);
    assert_int_equal(run(&a, &b, -1, 0), 3);
    noise_xx_split(&a, &at, &ar);
    noise_xx_split(&b, &bt, &br);
    assert_memory_equal(a.rs, pb, 32);
    assert_memory_equal(b.rs, pa, 32);
    assert_memory_equal(at.key, br.key, 32);
    assert_memory_equal(ar.key, bt.key, 32);
    assert_memory_not_equal(at.key, ar.key, 32);
    crypto_aead_seal(sealed, "hello", 5, NULL, 0, at.counter, at.key);
    assert_true(crypto_aead_open(plain, sealed, 21, NULL, 0, br.counter, br.key));
    assert_memory_equal(plain, "hello", 5);
}

static void every_changed_byte_is_found(void **state)
{
    (void)state;
    uint8_t sa[32], pa[32], sb_[32], pb[32];
    keys(sa, pa);
    keys(sb_, pb);
    for (size_t byte = 0; byte < 120; byte++)
        for (int message = 1; message < 3; message++) {
            struct noise_xx a, b;
            noise_xx_init(&a, true, sa, "p", 1);
            noise_xx_init(&b, false, sb_, "p", 1);
            assert_true(run(&a, &b, message, byte) < 3);
        }
}

static void another_prologue_is_another_protocol(void **state)
{
    (void)state;
    uint8_t sa[32], pa[32], sb_[32], pb[32];
    struct noise_xx a, b;
    keys(sa, pa);
    keys(sb_, pb);
    noise_xx_init(&a, true, sa, "p", 1);
    noise_xx_init(&b, false, sb_, "q", 1);
    assert_int_equal(run(&a, &b, -1, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_agree),
        cmocka_unit_test(every_changed_byte_is_found),
        cmocka_unit_test(another_prologue_is_another_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
