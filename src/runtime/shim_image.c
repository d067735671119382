/* The shim's program as bytes in this one: shoal stays one binary, and a shim carries neither its heap nor its
 * libraries. The assembler reads the file from the build folder. */
#include "runtime_internal.h"

__asm__(".pushsection .rodata\n"
        ".balign 16\n"
        ".globl shim_image, shim_image_end\n"
        "shim_image:\n"
        ".incbin \"shoal-shim\"\n"
        "shim_image_end:\n"
        ".popsection\n");
