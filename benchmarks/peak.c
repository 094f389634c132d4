/* Prints the peak of one core in GFLOP/s, of multiply-adds from registers: in fp32, and in bfloat16 with fp32 sums.
   It needs AVX-512 with bf16; another processor ends with an illegal instruction. */
#include <stdio.h>
#include <time.h>

#define SIXTEEN(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define ZERO(i) "vpxorq %%zmm" #i ", %%zmm" #i ", %%zmm" #i "\n"
#define FP32(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #i "\n"
#define BF16(i) "vdpbf16ps %%zmm30, %%zmm31, %%zmm" #i "\n"
#define USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
             "xmm13", "xmm14", "xmm15", "xmm30", "xmm31"
#define RUN(op) for (long i = 0; i < ROUNDS; i++) __asm__ volatile(SIXTEEN(op) ::: USED)

enum { ROUNDS = 20000000, REPEATS = 5 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

int main(void) {
    double fp32 = 0, bf16 = 0;
    __asm__ volatile(SIXTEEN(ZERO) ZERO(30) ZERO(31) ::: USED);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        double began = now();
        RUN(FP32);
        double between = now();
        RUN(BF16);
        double single = 16.0 * ROUNDS * 32 / (between - began) / 1e9; /* 16 numbers, a product and a sum each */
        double half = 16.0 * ROUNDS * 64 / (now() - between) / 1e9;
        fp32 = single > fp32 ? single : fp32;
        bf16 = half > bf16 ? half : bf16;
    }
    printf("%.1f %.1f\n", fp32, bf16);
    return 0;
}
