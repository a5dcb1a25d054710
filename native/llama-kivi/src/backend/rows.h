// The input rows of a matmul. C++17, because CUDA kernels include it.
#pragma once

namespace lk {

// A lazy operand [n, dim]: input rows plus the operation applied when they are read. The order of the members leaves no
// padding: CUDA graphs compare kernel arguments byte by byte.
struct Rows {
    enum class Form {
        plain,       // x
        rms_norm,    // x / rms(x) * weight
        layer_norm,  // (x - mean(x)) / std(x) * weight + bias
        swiglu,      // silu(x) * up
        gelu,        // gelu(x), the exact form with erf
    };

    const float* x;  // [n, dim]
    Form form = Form::plain;
    float eps = 0;                  // for norms
    const float* weight = nullptr;  // [dim] for norms; host address, also on a device
    const float* bias = nullptr;    // [dim] for layer_norm; host address, also on a device
    const float* up = nullptr;      // [n, dim] for swiglu

    static Rows plain(const float* x) { return {x}; }
    static Rows rms_norm(const float* x, const float* weight, float eps) { return {x, Form::rms_norm, eps, weight}; }
    static Rows layer_norm(const float* x, const float* weight, const float* bias, float eps) {
        return {x, Form::layer_norm, eps, weight, bias};
    }
    static Rows swiglu(const float* gate, const float* up) { return {gate, Form::swiglu, 0, nullptr, nullptr, up}; }
    static Rows gelu(const float* x) { return {x, Form::gelu}; }
};

}  // namespace lk
