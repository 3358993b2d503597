// A library that says it is TensorRT 10.3.0.99: not the one any shim was compiled for.
extern "C" {
int getInferLibMajorVersion() { return 10; }
int getInferLibMinorVersion() { return 3; }
int getInferLibPatchVersion() { return 0; }
int getInferLibBuildVersion() { return 99; }
void* createInferBuilder_INTERNAL(void*, int) { __builtin_trap(); }
void* createInferRuntime_INTERNAL(void*, int) { __builtin_trap(); }
}
