/* The loops of weightvc.delta.kernels, each one call without the interpreter lock. docs there; portable.py is the
 * definition: both give the same results for arguments as described there. Whatever the arguments, no memory but theirs
 * is touched. Python's limited API: one build serves every version. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are little-endian: use portable.py"
#endif

/* On x86-64, loops are compiled twice: for every processor, and for those with AVX2. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define FAST
#endif

/* Words of mapped files may stand at any address. */
typedef uint8_t word1;
typedef uint16_t word2 __attribute__((aligned(1), may_alias));
typedef uint32_t word4 __attribute__((aligned(1), may_alias));
typedef uint64_t word8 __attribute__((aligned(1), may_alias));

enum { PLANES = 8, BLOCK = 2048, RUNS = 16, SAMPLE = 4096, SAMPLED = 16384 };

#define FOR_EACH_WORD(DO) DO(1) DO(2) DO(4) DO(8)

#define DEFINE_LOOPS(W)                                                                                                \
    FAST static Py_ssize_t difference##W(const word##W *target, const word##W *guess, word##W *out, Py_ssize_t size)   \
    {                                                                                                                  \
        Py_ssize_t changed = 0;                                                                                        \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                                     \
            Py_ssize_t end = start + BLOCK < size ? start + BLOCK : size;                                              \
            uint32_t count = 0;                                                                                        \
            for (Py_ssize_t i = start; i < end; i++) {                                                                 \
                word##W delta = (word##W)(target[i] - guess[i]);                                                       \
                out[i] = delta;                                                                                        \
                count += delta != 0;                                                                                   \
            }                                                                                                          \
            changed += count;                                                                                          \
        }                                                                                                              \
        return changed;                                                                                                \
    }                                                                                                                  \
    FAST static void plane##W(const word##W *words, word##W bias, int shift, uint8_t *restrict plane, Py_ssize_t size) \
    {                                                                                                                  \
        for (Py_ssize_t i = 0; i < size; i++)                                                                          \
            plane[i] = (uint8_t)((word##W)(words[i] + bias) >> shift);                                                 \
    }                                                                                                                  \
    static void split##W(const word##W *words, uint64_t bias, uint8_t *planes, Py_ssize_t size)                        \
    {                                                                                                                  \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                                     \
            Py_ssize_t count = size - start < BLOCK ? size - start : BLOCK;                                            \
            for (int k = 0; k < W; k++)                                                                                \
                plane##W(words + start, (word##W)bias, 8 * k, planes + k * size + start, count);                       \
        }                                                                                                              \
    }                                                                                                                  \
    FAST static void start##W(const word##W *base, word##W constant, word##W *restrict out, Py_ssize_t size)           \
    {                                                                                                                  \
        if (base == NULL)                                                                                              \
            for (Py_ssize_t i = 0; i < size; i++)                                                                      \
                out[i] = constant;                                                                                     \
        else                                                                                                           \
            for (Py_ssize_t i = 0; i < size; i++)                                                                      \
                out[i] = (word##W)(base[i] + constant);                                                                \
    }                                                                                                                  \
    FAST static void add##W(const uint8_t *restrict plane, int shift, word##W *restrict out, Py_ssize_t size)          \
    {                                                                                                                  \
        for (Py_ssize_t i = 0; i < size; i++)                                                                          \
            out[i] = (word##W)(out[i] + ((word##W)plane[i] << shift));                                                 \
    }                                                                                                                  \
    static void merge##W(const uint8_t *const *planes, const word##W *base, uint64_t constant, word##W *out,           \
                         Py_ssize_t size)                                                                              \
    {                                                                                                                  \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                                     \
            Py_ssize_t count = size - start < BLOCK ? size - start : BLOCK;                                            \
            start##W(base == NULL ? NULL : base + start, (word##W)constant, out + start, count);                       \
            for (int k = 0; k < W; k++)                                                                                \
                if (planes[k] != NULL)                                                                                 \
                    add##W(planes[k] + start, 8 * k, out + start, count);                                              \
        }                                                                                                              \
    }                                                                                                                  \
    FAST static void unequal##W(const word##W *words, uint8_t *restrict out, Py_ssize_t size)                          \
    {                                                                                                                  \
        for (Py_ssize_t i = 0; i < size; i++)                                                                          \
            out[i] = words[i] != 0;                                                                                    \
    }                                                                                                                  \
    static void mark##W(const word##W *words, uint8_t *which, Py_ssize_t size)                                         \
    {                                                                                                                  \
        for (Py_ssize_t start = 0; start < size; start += BLOCK) {                                                     \
            Py_ssize_t count = size - start < BLOCK ? size - start : BLOCK;                                            \
            uint8_t marks[BLOCK] = {0};                                                                                \
            unequal##W(words + start, marks, count);                                                                   \
            for (Py_ssize_t at = 0; at < count; at += 8) {                                                             \
                uint64_t eight;                                                                                        \
                memcpy(&eight, marks + at, 8);                                                                         \
                *which++ = (uint8_t)(eight * UINT64_C(0x0102040810204080) >> 56);                                      \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void gather##W(const uint8_t *which, const word##W *words, uint64_t bias, word##W *changed, Py_ssize_t size,\
                          Py_ssize_t bytes)                                                                            \
    {                                                                                                                  \
        const word##W *end = changed + size;                                                                           \
        for (Py_ssize_t at = 0; at < bytes; at++)                                                                      \
            for (unsigned bits = which[at]; bits && changed < end; bits &= bits - 1)                                   \
                *changed++ = (word##W)(words[8 * at + __builtin_ctz(bits)] + bias);                                    \
    }                                                                                                                  \
    static void scatter##W(const uint8_t *which, const word##W *changed, word##W *out, Py_ssize_t size,                \
                           Py_ssize_t bytes)                                                                           \
    {                                                                                                                  \
        const word##W *end = changed + size;                                                                           \
        for (Py_ssize_t at = 0; at < bytes; at++)                                                                      \
            for (unsigned bits = which[at]; bits && changed < end; bits &= bits - 1) {                                 \
                word##W *word = out + 8 * at + __builtin_ctz(bits);                                                    \
                *word = (word##W)(*word + *changed++);                                                                 \
            }                                                                                                          \
    }                                                                                                                  \
    FAST static void turn##W(const word##W *words, int left, word##W *out, Py_ssize_t size)                            \
    {                                                                                                                  \
        for (Py_ssize_t i = 0; i < size; i++)                                                                          \
            out[i] = (word##W)(words[i] << left | words[i] >> (8 * W - left));                                         \
    }
FOR_EACH_WORD(DEFINE_LOOPS)

/* Memory that arguments lend. */

enum { MOST = 3 };
typedef struct {
    int count;
    Py_buffer of[MOST + PLANES];
} Loans;

static void give_back(Loans *loans)
{
    while (loans->count)
        PyBuffer_Release(&loans->of[--loans->count]);
}

/* Tell whether a format is that of one integer, of this machine's byte order. */
static int is_integer(const char *format)
{
    if (format == NULL)
        return 1; /* bytes */
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    return *format && strchr("bBhHiIlLqQ", *format) && !format[1];
}

/* Borrow one more contiguous array of integers; NULL, and nothing is borrowed any more, with an exception set. */
static Py_buffer *borrow(Loans *loans, PyObject *array, int writable)
{
    Py_buffer *found = &loans->of[loans->count];
    if (PyObject_GetBuffer(array, found, PyBUF_ND | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) == 0) {
        loans->count++;
        if (is_integer(found->format))
            return found;
        PyErr_SetString(PyExc_ValueError, "an array of something else than little-endian integers");
    }
    give_back(loans);
    return NULL;
}

static PyObject *refuse(Loans *loans, const char *why)
{
    give_back(loans);
    PyErr_SetString(PyExc_ValueError, why);
    return NULL;
}

static int is_word(const Py_buffer *words)
{
    return words->itemsize == 1 || words->itemsize == 2 || words->itemsize == 4 || words->itemsize == 8;
}

static int alike(const Py_buffer *one, const Py_buffer *other)
{
    return is_word(one) && one->itemsize == other->itemsize && one->len == other->len;
}

#define SIZE(buffer) ((buffer)->len / (buffer)->itemsize)

static PyObject *difference(PyObject *module, PyObject *args)
{
    PyObject *targets, *guesses, *outs;
    Loans loans = {0};
    Py_buffer *target, *guess, *out;
    Py_ssize_t changed = 0;
    if (!PyArg_ParseTuple(args, "OOO", &targets, &guesses, &outs) || !(target = borrow(&loans, targets, 0)) ||
        !(guess = borrow(&loans, guesses, 0)) || !(out = borrow(&loans, outs, 1)))
        return NULL;
    if (!alike(target, guess) || !alike(target, out))
        return refuse(&loans, "difference of arrays of another size");
    Py_BEGIN_ALLOW_THREADS
#define DO(W) if (target->itemsize == W) changed = difference##W(target->buf, guess->buf, out->buf, SIZE(target));
    FOR_EACH_WORD(DO)
#undef DO
    Py_END_ALLOW_THREADS
    give_back(&loans);
    return PyLong_FromSsize_t(changed);
}

FAST static int spread(const uint8_t *plane, Py_ssize_t size)
{
    uint8_t least = 255, most = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        least = plane[i] < least ? plane[i] : least;
        most = plane[i] > most ? plane[i] : most;
    }
    return most - least;
}

static int64_t sample(const uint8_t *plane, Py_ssize_t size, const int64_t *costs)
{
    uint32_t counts[256] = {0};
    uint64_t total = 0;
    for (int run = 0; run < RUNS; run++)
        for (int i = 0; i < SAMPLE / RUNS; i++)
            counts[plane[run * (size / RUNS) + i]]++;
    for (int value = 0; value < 256; value++)
        total += (uint64_t)costs[counts[value]];
    return (int64_t)total;
}

static PyObject *split(PyObject *module, PyObject *args)
{
    PyObject *arrays, *rooms, *tables, *found;
    unsigned long long bias;
    Loans loans = {0};
    Py_buffer *words, *planes, *costs;
    int spreads[PLANES];
    long long samples[PLANES] = {0};
    Py_ssize_t width, size;
    if (!PyArg_ParseTuple(args, "OKOO", &arrays, &bias, &rooms, &tables) || !(words = borrow(&loans, arrays, 0)) ||
        !(planes = borrow(&loans, rooms, 1)) || !(costs = borrow(&loans, tables, 0)))
        return NULL;
    if (!is_word(words) || !words->len || planes->itemsize != 1 || planes->len != words->len)
        return refuse(&loans, "split into planes of another size");
    if (costs->itemsize != 8 || SIZE(costs) != SAMPLE + 1)
        return refuse(&loans, "a table of another size");
    width = words->itemsize, size = SIZE(words);
    Py_BEGIN_ALLOW_THREADS
#define DO(W) if (width == W) split##W(words->buf, bias, planes->buf, size);
    FOR_EACH_WORD(DO)
#undef DO
    for (Py_ssize_t k = 0; k < width; k++) {
        const uint8_t *plane = (const uint8_t *)planes->buf + k * size;
        spreads[k] = spread(plane, size);
        if (size >= SAMPLED)
            samples[k] = sample(plane, size, costs->buf);
    }
    Py_END_ALLOW_THREADS
    give_back(&loans);
    found = PyList_New(width);
    for (Py_ssize_t k = 0; found && k < width; k++) {
        PyObject *pair = Py_BuildValue("(iL)", spreads[k], samples[k]);
        if (!pair || PyList_SetItem(found, k, pair))
            Py_CLEAR(found);
    }
    return found;
}

static PyObject *merge(PyObject *module, PyObject *args)
{
    PyObject *parts, *outs, *bases;
    unsigned long long constant;
    Loans loans = {0};
    Py_buffer *out, *base = NULL;
    const uint8_t *planes[PLANES] = {0};
    if (!PyArg_ParseTuple(args, "O!OKO", &PyTuple_Type, &parts, &outs, &constant, &bases) ||
        !(out = borrow(&loans, outs, 1)) || (bases != Py_None && !(base = borrow(&loans, bases, 0))))
        return NULL;
    if (!is_word(out) || (base && !alike(base, out)) || PyTuple_Size(parts) != out->itemsize)
        return refuse(&loans, "another number of planes, or a base of another size");
    for (Py_ssize_t k = 0; k < out->itemsize; k++) {
        Py_buffer *plane = borrow(&loans, PyTuple_GetItem(parts, k), 0);
        if (!plane)
            return NULL;
        if (plane->itemsize != 1 || (plane->len != 1 && plane->len != SIZE(out)))
            return refuse(&loans, "a plane of another size");
        if (plane->len == 1)
            constant += (unsigned long long)*(const uint8_t *)plane->buf << 8 * k;
        else
            planes[k] = plane->buf;
    }
    Py_BEGIN_ALLOW_THREADS
#define DO(W) if (out->itemsize == W) merge##W(planes, base ? base->buf : NULL, constant, out->buf, SIZE(out));
    FOR_EACH_WORD(DO)
#undef DO
    Py_END_ALLOW_THREADS
    give_back(&loans);
    Py_RETURN_NONE;
}

FAST static Py_ssize_t ones(const uint8_t *which, Py_ssize_t size)
{
    Py_ssize_t count = 0, at = 0;
    for (; at + 8 <= size; at += 8)
        count += __builtin_popcountll(*(const word8 *)(which + at));
    for (; at < size; at++)
        count += __builtin_popcount(which[at]);
    return count;
}

static PyObject *mark(PyObject *module, PyObject *args)
{
    PyObject *arrays, *maps;
    Loans loans = {0};
    Py_buffer *words, *which;
    if (!PyArg_ParseTuple(args, "OO", &arrays, &maps) || !(words = borrow(&loans, arrays, 0)) ||
        !(which = borrow(&loans, maps, 1)))
        return NULL;
    if (!is_word(words) || which->itemsize != 1 || which->len != (SIZE(words) + 7) / 8)
        return refuse(&loans, "a map of another size");
    Py_BEGIN_ALLOW_THREADS
#define DO(W) if (words->itemsize == W) mark##W(words->buf, which->buf, SIZE(words));
    FOR_EACH_WORD(DO)
#undef DO
    Py_END_ALLOW_THREADS
    give_back(&loans);
    Py_RETURN_NONE;
}

static PyObject *count(PyObject *module, PyObject *map)
{
    Loans loans = {0};
    Py_buffer *which;
    Py_ssize_t found;
    if (!(which = borrow(&loans, map, 0)))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    found = ones(which->buf, which->len);
    Py_END_ALLOW_THREADS
    give_back(&loans);
    return PyLong_FromSsize_t(found);
}

#define WRONG_MAP "a map of another size, or of another number of changed words"

/* Tell whether a map has as many ones as there are changed words, none of them past the end. */
static int fits(const Py_buffer *which, Py_ssize_t changed, Py_ssize_t size)
{
    const uint8_t *bytes = which->buf;
    if (which->itemsize != 1 || which->len != (size + 7) / 8)
        return 0;
    if (size % 8 && bytes[which->len - 1] >> size % 8)
        return 0;
    return ones(bytes, which->len) == changed;
}

static PyObject *gather(PyObject *module, PyObject *args)
{
    PyObject *maps, *arrays, *rooms;
    unsigned long long bias;
    Loans loans = {0};
    Py_buffer *which, *words, *changed;
    int whole = 0;
    if (!PyArg_ParseTuple(args, "OOKO", &maps, &arrays, &bias, &rooms) || !(which = borrow(&loans, maps, 0)) ||
        !(words = borrow(&loans, arrays, 0)) || !(changed = borrow(&loans, rooms, 1)))
        return NULL;
    if (is_word(words) && changed->itemsize == words->itemsize) {
        Py_BEGIN_ALLOW_THREADS
        whole = fits(which, SIZE(changed), SIZE(words));
        if (whole) {
#define DO(W) if (words->itemsize == W) gather##W(which->buf, words->buf, bias, changed->buf, SIZE(changed), which->len);
            FOR_EACH_WORD(DO)
#undef DO
        }
        Py_END_ALLOW_THREADS
    }
    if (!whole)
        return refuse(&loans, WRONG_MAP);
    give_back(&loans);
    Py_RETURN_NONE;
}

static PyObject *scatter(PyObject *module, PyObject *args)
{
    PyObject *maps, *arrays, *outs;
    Loans loans = {0};
    Py_buffer *which, *changed, *out;
    int whole = 0;
    if (!PyArg_ParseTuple(args, "OOO", &maps, &arrays, &outs) || !(which = borrow(&loans, maps, 0)) ||
        !(changed = borrow(&loans, arrays, 0)) || !(out = borrow(&loans, outs, 1)))
        return NULL;
    if (is_word(out) && changed->itemsize == out->itemsize) {
        Py_BEGIN_ALLOW_THREADS
        whole = fits(which, SIZE(changed), SIZE(out));
        if (whole) {
#define DO(W) if (out->itemsize == W) scatter##W(which->buf, changed->buf, out->buf, SIZE(changed), which->len);
            FOR_EACH_WORD(DO)
#undef DO
        }
        Py_END_ALLOW_THREADS
    }
    if (!whole)
        return refuse(&loans, WRONG_MAP);
    give_back(&loans);
    Py_RETURN_NONE;
}

static PyObject *turn(PyObject *module, PyObject *args)
{
    PyObject *arrays, *outs;
    int left;
    Loans loans = {0};
    Py_buffer *words, *out;
    if (!PyArg_ParseTuple(args, "OiO", &arrays, &left, &outs) || !(words = borrow(&loans, arrays, 0)) ||
        !(out = borrow(&loans, outs, 1)))
        return NULL;
    if (!alike(words, out) || left < 1 || left >= 8 * words->itemsize)
        return refuse(&loans, "room of another size, or a turn by too many bits");
    Py_BEGIN_ALLOW_THREADS
#define DO(W) if (words->itemsize == W) turn##W(words->buf, left, out->buf, SIZE(words));
    FOR_EACH_WORD(DO)
#undef DO
    Py_END_ALLOW_THREADS
    give_back(&loans);
    Py_RETURN_NONE;
}

FAST static void look_up(const word4 *base, const word4 *table, int down, word4 *out, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < size; i++)
        out[i] = base[i] + table[base[i] >> down & 255];
}

static PyObject *shifted(PyObject *module, PyObject *args)
{
    PyObject *arrays, *tables, *outs;
    int down;
    Loans loans = {0};
    Py_buffer *base, *table, *out;
    if (!PyArg_ParseTuple(args, "OOiO", &arrays, &tables, &down, &outs) || !(base = borrow(&loans, arrays, 0)) ||
        !(table = borrow(&loans, tables, 0)) || !(out = borrow(&loans, outs, 1)))
        return NULL;
    if (base->itemsize != 4 || !alike(base, out) || table->itemsize != 4 || SIZE(table) != 256 || down < 0 || down > 24)
        return refuse(&loans, "a table is of 256 words of four bytes, for as many");
    Py_BEGIN_ALLOW_THREADS
    look_up(base->buf, table->buf, down, out->buf, SIZE(base));
    Py_END_ALLOW_THREADS
    give_back(&loans);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"difference", difference, METH_VARARGS, NULL}, {"split", split, METH_VARARGS, NULL},
    {"merge", merge, METH_VARARGS, NULL},           {"mark", mark, METH_VARARGS, NULL},
    {"count", count, METH_O, NULL},                 {"gather", gather, METH_VARARGS, NULL},
    {"scatter", scatter, METH_VARARGS, NULL},       {"turn", turn, METH_VARARGS, NULL},
    {"shifted", shifted, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "compiled", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_compiled(void)
{
    return PyModuleDef_Init(&module);
}
