/* Selective scan on a processor: forward and backward, both directions in one call; and
 * the causal convolution that stands before it in a Mamba block (convolution.h).
 *
 *     h_t = exp(dt_t A) h_{t-1} + (dt_t u_t) B_t,    y_t = <h_t, C_t> + D u_t
 *
 * Axes: batch, group (channels that share B and C, and a direction), channel, state,
 * length (tokens). Any strides go.
 *
 * A vector holds LANES neighbouring channels (a block). A task is one sample, one group
 * and one part of its channels; tasks share nothing, and how they are cut depends on
 * the shapes alone, so the results do not depend on the number of threads. Within a
 * task the tokens are cut into chunks: the forward pass keeps the state at the start of
 * each (the checkpoints), the backward pass computes the states of one chunk anew.
 *
 * Plain C with the vector extensions of GCC and Clang; no header of Python or torch.
 * The loops are compiled once for each instruction set and the newest that the
 * processor has is taken when the program runs. Threads are those of the OpenMP
 * library that torch has loaded, when there is one: its entry points are weak symbols,
 * so that there is one pool of threads and nothing to link.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define VECTOR_BYTES 64

typedef struct {
    void *data;
    int64_t stride[4]; /* in elements, in the order of the axes named below */
} Array;

/* Laid out as `_Problem` in c_library.py. */
typedef struct {
    int64_t batch, group, channel, state, length; /* channel: of one group */
    int64_t part;     /* parts into which the channels of a group are cut */
    int64_t chunk;    /* tokens of a chunk */
    int64_t reversed; /* bit g: group g runs from the last token to the first */
    int64_t threads;
    int64_t is_double;
    int64_t instructions; /* 0 baseline, 1 AVX2, 2 AVX-512 */
    int64_t has_softplus; /* whether step sizes are softplus(dt + dt_bias) */
    Array u, dt;          /* batch, channel of all groups, length */
    Array A;              /* channel of all groups, state */
    Array B, C;           /* batch, group, state, length */
    Array D;              /* channel of all groups; data is NULL without a skip */
    Array dt_bias;        /* as D */
    Array z;              /* as u; data is NULL without a gate */
    Array y;              /* as u */
    void *checkpoints;    /* contiguous; NULL when no gradient will be asked for */
    Array grad_y, grad_u, grad_dt; /* as u */
    Array grad_A;                  /* as A */
    Array grad_B, grad_C;          /* part x batch, group, state, length */
    Array grad_D, grad_dt_bias;    /* as D */
    Array grad_z;                  /* as u */
    /* Set by run(). */
    void *constants; /* weights of the channels as vectors */
    void *sums;      /* sums over tokens, for each sample */
    int64_t next_task;
    int64_t failed;
} Problem;

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)

/* In round s of a transposition the low row keeps its lanes j without bit s and takes
 * the lanes j - s of the high row; the high row the other way round. */
#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLE
#define LOW(j, s, lanes) ((j) & (s) ? (lanes) + (j) - (s) : (j))
#define HIGH(j, s, lanes) ((j) & (s) ? (lanes) + (j) : (j) + (s))
#define FOR_8(f, s, lanes, j)                                                          \
    f(j, s, lanes), f(j + 1, s, lanes), f(j + 2, s, lanes), f(j + 3, s, lanes),        \
        f(j + 4, s, lanes), f(j + 5, s, lanes), f(j + 6, s, lanes), f(j + 7, s, lanes)
#define SHUFFLE_8(f, a, b, s) __builtin_shufflevector(a, b, FOR_8(f, s, 8, 0))
#define SHUFFLE_16(f, a, b, s)                                                         \
    __builtin_shufflevector(a, b, FOR_8(f, s, 16, 0), FOR_8(f, s, 16, 8))
#endif
#endif

/* One copy of the loops for each instruction set. */
#if defined(__x86_64__)
#define HAS_SETS
#include <immintrin.h>
#define STRING_(text) #text
#define STRING(text) STRING_(text)
#ifdef __clang__
#define BEGIN_SET(names)                                                               \
    _Pragma(STRING(clang attribute push(__attribute__((target(names))),                \
                                        apply_to = function)))
#define END_SET _Pragma("clang attribute pop")
#else
#define BEGIN_SET(names) _Pragma("GCC push_options") _Pragma(STRING(GCC target(names)))
#define END_SET _Pragma("GCC pop_options")
#endif

BEGIN_SET("avx2,fma")
#define SET avx2
#include "types.h"
#undef SET
END_SET

BEGIN_SET("avx2,fma,avx512f,avx512dq,avx512bw,avx512vl")
#define SET avx512
#define WIDE
#include "types.h"
#undef WIDE
#undef SET
END_SET
#endif

#define SET baseline
#include "types.h"
#undef SET

/* Threads: GCC's interface to OpenMP, which torch's copy of the library exports. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned)
    __attribute__((weak));

typedef int (*Task)(const Problem *, int64_t);

enum Pass { FORWARD, BACKWARD, CONVOLVE_FORWARD, CONVOLVE_BACKWARD };

/* One function for both number types and all instruction sets. */
#ifdef HAS_SETS
#define SETS(name, type) {name##_baseline_##type, name##_avx2_##type, name##_avx512_##type}
#else
#define SETS(name, type)                                                               \
    {name##_baseline_##type, name##_baseline_##type, name##_baseline_##type}
#endif
#define TABLE(name) {SETS(name, float), SETS(name, double)}

static const Task tasks[4][2][3] = {
    TABLE(forward),
    TABLE(backward),
    TABLE(convolve_forward),
    TABLE(convolve_backward),
};
static void (*const preparations[2][3])(const Problem *, double) = TABLE(prepare);
static void (*const endings[2][3])(const Problem *) = TABLE(finish);

typedef struct {
    Problem *problem;
    Task task;
} Job;

static void run_tasks(void *argument)
{
    Job *job = argument;
    Problem *p = job->problem;
    const int64_t n_tasks = p->batch * p->group * p->part;
    for (;;) {
        int64_t one = __atomic_fetch_add(&p->next_task, 1, __ATOMIC_RELAXED);
        if (one >= n_tasks)
            return;
        if (job->task(p, one))
            __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
    }
}

static int run(Problem *p, enum Pass pass)
{
    const int type = p->is_double != 0, set = (int)p->instructions;
    Job job = {p, tasks[pass][type][set]};
    const int is_backward = pass == BACKWARD || pass == CONVOLVE_BACKWARD;
    const double log2e = 1.4426950408889634074;
    const double factor = pass == FORWARD || pass == BACKWARD ? log2e : 1;
    const int64_t lanes = VECTOR_BYTES / (p->is_double ? sizeof(double) : sizeof(float));
    const int64_t n_blocks = p->group * ((p->channel + lanes - 1) / lanes);
    const int64_t size = n_blocks * (p->state + 2) * VECTOR_BYTES;
    char *space = NULL;
    if (posix_memalign((void **)&space, VECTOR_BYTES,
                       size * (is_backward ? 1 + p->batch : 1)))
        return 1;
    p->constants = space;
    p->sums = space + size;
    preparations[type][set](p, factor);
    p->next_task = p->failed = 0;
    if (p->threads > 1 && GOMP_parallel)
        GOMP_parallel(run_tasks, &job, (unsigned)p->threads, 0);
    else
        run_tasks(&job);
    if (is_backward)
        endings[type][set](p);
    free(space);
    return (int)p->failed;
}

/* All return 0, or 1 when there was no memory for the work space. */
int sciseq_scan_forward(Problem *p) { return run(p, FORWARD); }
int sciseq_scan_backward(Problem *p) { return run(p, BACKWARD); }
int sciseq_convolution_forward(Problem *p) { return run(p, CONVOLVE_FORWARD); }
int sciseq_convolution_backward(Problem *p) { return run(p, CONVOLVE_BACKWARD); }

/* The newest instruction set of this processor, as in Problem.instructions. */
int sciseq_scan_instructions(void)
{
#ifdef HAS_SETS
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 2;
    return 1;
#else
    return 0;
#endif
}

/* Whether more than one thread can be used. */
int sciseq_scan_has_threads(void) { return GOMP_parallel != 0; }

int64_t sciseq_scan_problem_size(void) { return sizeof(Problem); }
