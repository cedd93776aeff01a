#include <align_runtime.h>

int takes_the_default_options(void);

int takes_the_default_options(void) { return align_default_options().threads; }
