/* Embeds texts in C: embed BUNDLE TEXT... prints the cosine of each text with the first one. */
#include <align_runtime.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    align_model *model = NULL;
    align_options options = align_default_options();
    size_t count = argc > 2 ? (size_t)(argc - 2) : 0, dim, row, i;
    float *rows;
    align_status status;

    options.towers = "text";
    if (count == 0 || align_open(argv[1], &options, &model) != ALIGN_OK) {
        fprintf(stderr, "%s\n", count == 0 ? "usage: embed BUNDLE TEXT..." : align_last_error());
        return 2;
    }
    dim = align_embedding_dim(model);
    rows = malloc(count * dim * sizeof *rows);
    status = align_embed_texts(model, (const char *const *)(argv + 2), count, rows, rows ? count * dim : 0);
    if (status != ALIGN_OK)
        fprintf(stderr, "%s\n", align_last_error());
    for (row = 0; status == ALIGN_OK && row < count; ++row) {
        float cosine = 0;
        for (i = 0; i < dim; ++i)
            cosine += rows[i] * rows[row * dim + i];
        printf("%.4f %s\n", (double)cosine, argv[2 + row]);
    }
    free(rows);
    align_close(model);
    return status == ALIGN_OK ? 0 : 1;
}
