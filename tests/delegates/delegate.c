/* An external delegate for the tests, made of the stable part of TFLite's C structures. KIND chooses what it does:
   0 takes the last operator, if it is a softmax, and answers 0.1, 0.2, 0.7;  1 takes nothing;  2 refuses its options;
   3 crashes in its initialiser;  4 crashes in its first run;  5 ends the process in its initialiser;
   6 hangs in its initialiser;  7 takes the last operator, a softmax of three numbers, and does it right;
   8 does so and talks on stdout in every run and at the end of the process. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOFTMAX 25

typedef struct { int size; int data[]; } IntArray;
typedef struct { int type; float* data; char rest[112 - 16]; } Tensor;
typedef struct Context Context;
typedef struct { IntArray* inputs; IntArray* outputs; } Node;
typedef struct {
  void* (*init)(Context*, const char*, size_t);
  void (*free)(Context*, void*);
  int (*prepare)(Context*, Node*);
  int (*invoke)(Context*, Node*);
  const char* (*profiling)(const Context*, const Node*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  char rest[256];
} Registration;
typedef struct Delegate {
  void* data;
  int (*prepare)(Context*, struct Delegate*);
  void* copy_from;
  void* copy_to;
  void* free_handle;
  int64_t flags;
  void* builder;
} Delegate;
struct Context {
  size_t tensors_size;
  int (*GetExecutionPlan)(Context*, IntArray**);
  Tensor* tensors;
  void* impl;
  void* ResizeTensor;
  void* ReportError;
  void* AddTensors;
  int (*GetNode)(Context*, int, Node**, Registration**);
  int (*ReplaceNodes)(Context*, Registration, const IntArray*, Delegate*);
};

static int invoke(Context* context, Node* node) {
  if (KIND == 4) abort();
  float answer[] = {0.1f, 0.2f, 0.7f};
  if (KIND == 8) puts("a run"), write(1, "of it\n", 6);
  if (KIND >= 7) {
    const float* x = context->tensors[node->inputs->data[0]].data;
    const float sum = expf(x[0]) + expf(x[1]) + expf(x[2]);
    for (int i = 0; i < 3; ++i) answer[i] = expf(x[i]) / sum;
  }
  memcpy(context->tensors[node->outputs->data[0]].data, answer, sizeof answer);
  return 0;
}

__attribute__((destructor)) static void end(void) {
  if (KIND == 8) puts("the end"), write(1, "of it\n", 6);
}

static int nothing(Context* context, Node* node) { return 0; }

static int take_last(Context* context, Delegate* delegate) {
  IntArray* plan;
  Node* node;
  Registration* operator;
  if (KIND == 1) return 0;
  if (context->GetExecutionPlan(context, &plan)) return 1;
  struct { int size; int node; } last = {1, plan->data[plan->size - 1]};
  if (context->GetNode(context, last.node, &node, &operator)) return 1;
  if (operator->builtin_code != SOFTMAX) return 0;
  Registration kernel = {0};
  kernel.prepare = nothing;
  kernel.invoke = invoke;
  kernel.custom_name = "TestDelegate";
  kernel.version = 1;
  return context->ReplaceNodes(context, kernel, (const IntArray*)&last, delegate);
}

#ifndef NO_DELEGATE
Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  static Delegate delegate = {.prepare = take_last};
  if (KIND == 3) abort();
  if (KIND == 5) _Exit(7);
  while (KIND == 6) pause();
  if (KIND == 2 && count) {
    report("unknown option: ");
    report(keys[0]);
    return NULL;
  }
  return &delegate;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) {}
#endif
