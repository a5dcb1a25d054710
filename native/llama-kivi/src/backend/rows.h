// What a product multiplies. C++17, for CUDA's compiler.
#pragma once

namespace lk {

// Rows [n, dim] that are made of others on the way to where they are used.
struct Rows {
    enum class Form {
        plain,       // x
        rms_norm,    // x / rms(x) * weight
        layer_norm,  // (x - mean(x)) / deviation(x) * weight + bias
        swiglu,      // silu(x) * up
        gelu,        // gelu(x), the exact form with erf
    };

    const float* x;  // [n, dim]
    Form form = Form::plain;
    const float* weight = nullptr;  // [dim], of the norms; as bias, named by where it lies on the host
    const float* bias = nullptr;    // [dim]
    float eps = 0;                  // of the norms
    const float* up = nullptr;      // [n, dim]

    static Rows plain(const float* x) { return {x}; }
    static Rows rms_norm(const float* x, const float* weight, float eps) {
        return {x, Form::rms_norm, weight, nullptr, eps};
    }
    static Rows layer_norm(const float* x, const float* weight, const float* bias, float eps) {
        return {x, Form::layer_norm, weight, bias, eps};
    }
    static Rows swiglu(const float* gate, const float* up) { return {gate, Form::swiglu, nullptr, nullptr, 0, up}; }
    static Rows gelu(const float* x) { return {x, Form::gelu}; }
};

}  // namespace lk
